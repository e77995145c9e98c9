"""PROMOTE or REJECT: one calibrated decision, then vetoes that are stated beforehand, each with what it saw.

The decision is a test for superiority over everything that was tried on the same bars (Romano and Wolf's StepM at 5%), against equal
weight and against the strongest rule that the run has; it promotes at most one skill-less search in twenty. A veto does
not weigh evidence: it says that the evidence cannot be believed. What the diagnostics say is told, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from rlaif_ray.backtest.overfitting import backtest_overfitting
from rlaif_ray.backtest.power import Detectable, detectable, effective_trials
from rlaif_ray.backtest.sharpe import Moments, deflated_sharpe, probabilistic_sharpe
from rlaif_ray.backtest.snooping import Superiority, superiority
from rlaif_ray.errors import DataError

LEVEL = 0.05  # chance that a search without any skill is promoted
LADDER_BPS = (0.0, 5.0, 10.0, 25.0, 50.0)  # costs of one side; the result must stand on the rung `HELD_TO_BPS`
HELD_TO_BPS = 10.0
FINEST = 5000  # resamples at most, and so the finest level
BLOCKS = 16  # of CSCV, where the bars fill them twice
SEEDS = 3  # a policy that chance had a part in must be the same news under so many seeds


@dataclass(frozen=True, eq=False)
class Case:
    """What is brought before the gate: log excess returns of one policy and of all that was tried, on the same T test bars.

    Parameters
    ----------
    policy : its name.
    tried : by benchmark, (T,K) log return of everything tried over that benchmark; the policy's own is column `column`.
    column : by benchmark, where the policy stands.
    trials : how many distinct trials the ledger counts on this data; at least K, for some may cover other bars. Their
        returns cannot be compared, so the level of the test shrinks by their share.
    regimes : (T,) name of the market's state, known at the decision behind each bar.
    ladder : bps a side -> (T,) excess over equal weight, both at that cost.
    stressed : stress -> (T,) excess over equal weight, both under it; None where it does not apply.
    seeds : (T,) excess over equal weight by seed, the policy's own included; empty where chance had no part.
    leak, contaminated, unopposed : what was found, in words; None where nothing was. Unopposed is who was never held
        against a rule that learns.
    """

    policy: str
    bars_per_year: float
    tried: Mapping[str, np.ndarray]
    column: Mapping[str, int]
    trials: int
    regimes: np.ndarray
    ladder: Mapping[float, np.ndarray]
    stressed: Mapping[str, np.ndarray | None]
    seeds: Mapping[int, np.ndarray] | None = None
    leak: str | None = None
    contaminated: str | None = None
    unopposed: str | None = None


@dataclass(frozen=True)
class Test:
    """Superiority over one benchmark: `passed` iff StepM names the policy among the superior ones."""

    benchmark: str
    passed: bool
    value: float  # mean log excess a year
    p_value: float  # chance that the best of a search without skill does as well
    critical: float  # standard errors that the best of the search has to pass
    trials: int


@dataclass(frozen=True)
class Veto:
    name: str
    fired: bool
    seen: str


@dataclass(frozen=True)
class Diagnostics:
    """Told, not decided on. The Sharpe ratio is annual; None is what these bars or trials do not allow."""

    sharpe: float  # of the excess over equal weight
    probabilistic: float | None
    deflated: float | None
    effective_trials: float
    pbo: float | None
    detectable: Detectable
    regimes: dict[str, dict[str, float]]  # bars, and the log excess a year that they added: over all regimes, the whole
    ladder: dict[str, float]  # bps -> mean log excess a year
    stressed: dict[str, float | None]
    seeds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    policy: str
    promote: bool
    reasons: tuple[str, ...]
    tests: tuple[Test, ...]
    vetoes: tuple[Veto, ...]
    diagnostics: Diagnostics

    @property
    def word(self) -> str:
        return "PROMOTE" if self.promote else "REJECT"


def judge(case: Case, *, resamples: int = 1000, seed: int) -> Verdict:
    """The verdict on one policy.

    Raises `DataError` where the bars cannot carry one (too few for their own dependence, a policy that is the benchmark).
    """
    if "equal_weight" not in case.tried:
        raise DataError(f"{case.policy} was not held against equal_weight; expected it among the benchmarks {sorted(case.tried)}")
    found = {name: _search(x, case.trials, resamples, seed) for name, x in case.tried.items()}
    tests = tuple(_test(case, name, each) for name, each in found.items())
    said = vetoes(case)
    missed = [f"not superior to {t.benchmark} after {t.trials} tries (p {t.p_value:.3f})" for t in tests if not t.passed]
    fired = [f"{v.name}: {v.seen}" for v in said if v.fired]
    promote = not missed and not fired
    reasons = (*missed, *fired) or (f"superior to {' and '.join(case.tried)} at {LEVEL:.0%} over all that was tried; no veto",)
    return Verdict(case.policy, promote, reasons, tests, said, _diagnose(case, found["equal_weight"]))


def _search(excess: np.ndarray, trials: int, resamples: int, seed: int) -> Superiority:
    """The test at the level's share of who was tried on these bars, so that all searches together keep it; 1 in `FINEST` at least."""
    level = max(LEVEL * min(1.0, excess.shape[1] / trials), 1.0 / FINEST)
    return superiority(excess, level=level, resamples=int(np.clip(np.ceil(20 / level), resamples, FINEST)), seed=seed)


def _own(case: Case, benchmark: str = "equal_weight") -> np.ndarray:
    return case.tried[benchmark][:, case.column[benchmark]]


def _a_year(case: Case, excess: np.ndarray) -> float:
    return float(excess.mean() * case.bars_per_year)


def _test(case: Case, benchmark: str, found: Superiority) -> Test:
    own = case.column[benchmark]
    p_value, elsewhere = found.p_values[own], case.trials - case.tried["equal_weight"].shape[1]  # trials that left no returns on these bars
    value, trials = _a_year(case, _own(case, benchmark)), found.trials + max(0, elsewhere)
    return Test(benchmark, own in found.superior, value, p_value, found.critical, trials)


def vetoes(case: Case) -> tuple[Veto, ...]:
    """All of them, fired or not, so that a reader sees what was looked at."""
    at_cost = _a_year(case, case.ladder[HELD_TO_BPS])
    stressed = [
        Veto(name, x is not None and x.mean() <= 0, "does not apply" if x is None else f"excess {_a_year(case, x):.1%} a year")
        for name, x in case.stressed.items()
    ]
    return (
        Veto("cost ladder", at_cost <= 0, f"excess {at_cost:.1%} a year at {HELD_TO_BPS:g} bps a side"),
        *stressed,
        Veto("strong rule", case.unopposed is not None, case.unopposed or "held against a rule that learns, or is it"),
        Veto("looks ahead", case.leak is not None, case.leak or "decisions stay as they were whatever comes after them"),
        Veto("contaminated", case.contaminated is not None, case.contaminated or "no part was trained on the tested years"),
        _one_regime(case),
        _seeds(case),
    )


def _one_regime(case: Case) -> Veto:
    """Fires where the bars outside the kindest regime, together, earn nothing over equal weight."""
    own, names = _own(case), np.unique(case.regimes)
    totals = {str(name): float(own[case.regimes == name].sum()) for name in names}
    best = max(totals, key=lambda name: totals[name])
    rest = sum(total for name, total in totals.items() if name != best)
    outside = (case.regimes != best).sum()
    if not outside:
        return Veto("one regime", True, f"all bars are {best}; expected at least two regimes: test over a longer span")
    return Veto("one regime", rest <= 0, f"excess {rest / outside * case.bars_per_year:.1%} a year outside its best regime, {best}")


def _seeds(case: Case) -> Veto:
    if case.seeds is None:
        return Veto("seeds", False, "chance has no part in it")
    values = sorted(_a_year(case, x) for x in case.seeds.values())
    if len(values) < SEEDS:
        return Veto("seeds", True, f"{len(values)} of {SEEDS} seeds tried; run the same configuration with other --seed")
    return Veto("seeds", values[0] <= 0, f"excess {values[0]:.1%} to {values[-1]:.1%} a year over {len(values)} seeds")


def _diagnose(case: Case, found: Superiority) -> Diagnostics:
    own, tried = _own(case), case.tried["equal_weight"]
    moments, independent = Moments.of(own), effective_trials(tried)
    ratios = tried.mean(axis=0) / tried.std(axis=0, ddof=1)
    # The ledger may know of more trials than there are returns to correlate: each of those counts as one of its own.
    counted = independent + max(0, case.trials - tried.shape[1])
    variance = float(ratios.var(ddof=1)) if len(ratios) > 1 else 0.0
    states = {str(name): case.regimes == name for name in np.unique(case.regimes)}
    return Diagnostics(
        sharpe=float(moments.sharpe * np.sqrt(case.bars_per_year)),
        probabilistic=_or_none(lambda: probabilistic_sharpe(moments)),
        deflated=_or_none(lambda: deflated_sharpe(moments, trials=counted, variance=variance)),
        effective_trials=counted,
        pbo=_or_none(lambda: backtest_overfitting(tried, blocks=min(BLOCKS, len(tried) // 4 * 2)).pbo),
        detectable=detectable(own, bars_per_year=case.bars_per_year, hurdle=max(found.critical, 1e-9)),
        regimes={name: {"bars": int(at.sum()), "added": _a_year(case, own * at)} for name, at in states.items()},
        ladder={f"{bps:g}": _a_year(case, x) for bps, x in case.ladder.items()},
        stressed={name: None if x is None else _a_year(case, x) for name, x in case.stressed.items()},
        seeds={str(s): _a_year(case, x) for s, x in sorted((case.seeds or {}).items())},
    )  # fmt: skip


def _or_none(told: Callable[[], float]) -> float | None:
    """A diagnostic that cannot be said is not said; the verdict does not wait for it."""
    try:
        return told()
    except DataError:
        return None
