"""Knobs of trading: where decisions fill, what that costs, what an account may do, and which rules have the last word."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rlaif_ray.config_data import Section

Preset = Literal["research", "institutional"]

# The price paid on average is two thirds of where the square-root law ends, at a coefficient of 1 (Toth et al. 2011).
IMPACT = 2 / 3
PRESETS: dict[str, dict[str, dict[str, float]]] = {
    "research": {},  # what the knobs are by default
    "institutional": {
        "costs": {"half_spread_bps": 2.0, "slippage_bps": 5.0},
        "limits": {"max_weight": 0.10, "max_sector": 0.30, "drawdown": 0.15, "daily_loss": 0.03, "intraday_loss": 0.03},
    },
}  # fmt: skip


class Costs(Section):
    commission_bps: float = Field(default=0.5, ge=0)
    """Of the notional."""
    half_spread_bps: float = Field(default=1.0, ge=0)
    """Paid on each side."""
    slippage_bps: float = Field(default=2.0, ge=0)
    """Paid on each side."""
    impact: float | None = Field(default=None, ge=0)
    """Square-root impact, in bar volatilities paid by who takes a bar's usual volume; None: 2/3 where there are volumes, else 0."""
    temporary: float = Field(default=0.0, ge=0)
    """Almgren-Chriss linear temporary impact, in the same units."""
    permanent: float = Field(default=0.0, ge=0)
    """Almgren-Chriss permanent impact: how many bar volatilities a whole bar's usual volume moves the price by, for good."""
    borrow_bps: float = Field(default=1.0, ge=0)
    """Of the short value, a calendar day."""


class Account(Section):
    long_short: bool = False
    """Weights may be negative: gross at most 2, net between -1 and 1. Learned policies take both sides; rules and theses stay long-only."""
    whole_shares: bool = False
    """Deal in whole shares only."""
    participation: float | None = Field(default=None, gt=0, le=1)
    """Most that a fill takes of the bar's volume, a fraction; the remainder is cancelled. None: as much as is asked for."""
    cash_interest: float = Field(default=0.0, gt=-1, lt=1)
    """Paid on cash, a year."""
    maintenance: float = Field(default=0.3, ge=0, lt=1)
    """Equity below this share of gross exposure is liquidated at the next fill, where shares can be borrowed."""


class Limits(Section):
    """Rules with the last word over every policy."""

    max_weight: float = Field(default=0.30, gt=0, le=1)
    """Cap on one name; a cap below 1/A becomes 1/A."""
    max_sector: float = Field(default=0.50, gt=0, le=1)
    """Cap on the names of one sector together, where sectors are known (--features.universe)."""
    drawdown: float = Field(default=0.25, gt=0, le=1)
    """Equity so far below its peak goes to cash for `cooldown_bars`; 1: never."""
    cooldown_bars: int = Field(default=20, ge=1)
    """How long a tripped drawdown breaker keeps the account in cash."""
    daily_loss: float = Field(default=1.0, gt=0, le=1)
    """After such a loss since the close before, no new risk until the session ends; 1: never."""
    intraday_loss: float = Field(default=1.0, gt=0, le=1)
    """After such a fall from the session's highest equity, flat until it ends; never on daily bars, each a session of its own; 1: never."""
    turbulence: float = Field(default=1.0, gt=0, le=1)
    """No purchases while turbulence is above this quantile of what was seen before; 1: never."""
    target_volatility: float = Field(default=0.0, ge=0)
    """Exposure is cut to this annual volatility of the account's own returns; 0: not at all."""
    cvar: float = Field(default=0.0, ge=0, lt=1)
    """Exposure is cut so that the conformal CVaR of the account's own losses a bar stays below this; 0: not at all."""
    var: float = Field(default=0.0, ge=0, lt=1)
    """Targets with a larger one-bar value at risk (99%; historical or Cornish-Fisher, the larger) are scaled down to it; 0: not checked."""


class Execution(Section):
    fill: Literal["auto", "next_open", "next_close"] = "auto"
    """Where a decision on bar t fills; auto: next_open where the source has opens, else next_close."""
    preset: Preset = "research"
    """Costs and limits that are not set: research 3.5 bps a side, 30% a name, 50% a sector, 25% drawdown; institutional 7.5, 10, 30, 15."""
    costs: Costs = Costs()
    limits: Limits = Limits()
    account: Account = Account()
    initial_cash_usd: float = Field(default=1_000_000.0, gt=0)
    """Where every path starts; impact depends on it."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, tree: Any) -> Any:
        """What a preset says goes under what was set by hand."""
        preset = PRESETS.get(tree.get("preset", "research")) if isinstance(tree, dict) else None
        if preset is None:
            return tree
        given = {part: tree.get(part, {}) for part in preset}
        return tree | {part: {**preset[part], **given[part]} if isinstance(given[part], dict) else given[part] for part in preset}
