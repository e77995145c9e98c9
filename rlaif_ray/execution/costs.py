"""What a fill costs, and what being short costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from rlaif_ray.errors import ConfigError


@dataclass(frozen=True)
class CostModel:
    """Costs of trading q shares at a reference price (open or close) p, and of holding shorts.

    With sigma the volatility a bar and adv the mean volume of a bar, both known when the decision was made, a fill costs
    |q| p (commission + half_spread + slippage + impact sigma sqrt(|q|/adv) + temporary sigma |q|/adv): half-spread and
    slippage are the distance between the reference price and the price paid, commission comes on top; the square-root law is
    that of Toth et al. (2011), "Anomalous price impact and the critical nature of liquidity", eq. 1; linear temporary impact
    is that of Almgren & Chriss (2001), "Optimal execution of portfolio transactions", eq. 7. Their permanent impact (eq. 6)
    moves the price that this path sees for good, by a factor exp(permanent sigma q/adv), and is paid as the price moves: the
    integral over the order, so that a round trip gains nothing (Huberman & Stanzl 2004) while sigma/adv is what it was; where
    that has changed in between, it may.
    """

    commission: float = 0.0  # fraction of the notional
    half_spread: float = 0.0  # fraction of the notional
    slippage: float = 0.0  # fraction of the notional
    impact: float = 0.0  # of the square-root law
    temporary: float = 0.0  # Almgren-Chriss
    permanent: float = 0.0  # Almgren-Chriss
    borrow: float = 0.0  # fraction of the short value, a calendar day

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"cost {f.name!r} is {value}; expected a finite number, 0 or more")
        if self.rate >= 1:
            raise ConfigError(f"costs add up to {self.rate} of the notional; expected less than 1 (0.0001 is one basis point)")

    @classmethod
    def of_bps(
        cls, commission_bps: float, half_spread_bps: float, slippage_bps: float, impact: float = 0.0, temporary: float = 0.0,
        permanent: float = 0.0, borrow_bps: float = 0.0,
    ) -> CostModel:  # fmt: skip
        """From basis points (1 bp = 0.0001); the coefficients of impact are plain numbers."""
        return cls(commission_bps / 1e4, half_spread_bps / 1e4, slippage_bps / 1e4, impact, temporary, permanent, borrow_bps / 1e4)

    @property
    def rate(self) -> float:
        """What one side costs at any size, as a fraction of the notional: impact comes on top."""
        return self.commission + self.half_spread + self.slippage

    @property
    def needs_volume(self) -> bool:
        return self.impact > 0 or self.temporary > 0 or self.permanent > 0
