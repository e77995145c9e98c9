"""The terms on which every policy of a run trades: one value, from training to serving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import LONG_ONLY, Fill
from rlaif_ray.portfolio.limits import Limits

FREE, NO_LIMITS = CostModel(), Limits()


@dataclass(frozen=True)
class Terms:
    """What a fill costs and when it comes, what the account may do, and the rules that have the last word."""

    costs: CostModel = FREE
    fill: Fill = "next_open"
    account: AccountRules = LONG_ONLY
    limits: Limits = NO_LIMITS
    sectors: Mapping[str, str] = field(default_factory=dict)  # by symbol; names without one are in no sector
    cash_usd: float = 1_000_000.0
