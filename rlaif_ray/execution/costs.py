"""What a fill costs, as fractions of the traded notional."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlaif_ray.errors import ConfigError


@dataclass(frozen=True)
class CostModel:
    """Proportional costs; each is a fraction of the notional at the reference price (open or close) of the fill.

    A sale of notional x brings x * (1 - rate) of cash, a purchase takes x * (1 + rate): half-spread and slippage are
    the distance between the reference price and the price paid, commission comes on top.
    """

    commission: float = 0.0
    half_spread: float = 0.0
    slippage: float = 0.0

    def __post_init__(self) -> None:
        for name in ("commission", "half_spread", "slippage"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"cost {name!r} is {value}; expected a finite fraction of the notional, 0 or more")
        if self.rate >= 1:
            raise ConfigError(f"costs add up to {self.rate} of the notional; expected less than 1 (0.0001 is one basis point)")

    @classmethod
    def of_bps(cls, commission_bps: float, half_spread_bps: float, slippage_bps: float) -> CostModel:
        """From basis points (1 bp = 0.0001)."""
        return cls(commission_bps / 1e4, half_spread_bps / 1e4, slippage_bps / 1e4)

    @property
    def rate(self) -> float:
        """Cost of one side as a fraction of the notional."""
        return self.commission + self.half_spread + self.slippage
