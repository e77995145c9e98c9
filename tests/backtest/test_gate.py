"""The gate's verdict: what promotes, what each veto fires on, and that it says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlaif_ray.backtest.gate import LADDER_BPS, Case, judge
from rlaif_ray.errors import DataError

BARS, YEAR = 2520, 252


def case(sharpe: float = 2.0, *, trials: int = 20, seed: int = 0) -> Case:
    """A search of `trials` series of which the first has this annual Sharpe ratio over both benchmarks; nothing else is wrong."""
    rng = np.random.default_rng(seed)
    names = np.array(["calm", "rough"])[(np.arange(BARS) // 60) % 2]
    tried = 0.003 * rng.standard_t(5, (BARS, trials))
    for name in ("calm", "rough"):
        tried[names == name] -= tried[names == name].mean(axis=0)  # so that what is planted is what is found
    tried[:, 0] += sharpe / np.sqrt(YEAR) * tried[:, 0].std()
    own = tried[:, 0]
    return Case(
        "planted", YEAR, {"equal_weight": tried, "lightgbm_optimiser": tried.copy()}, {"equal_weight": 0, "lightgbm_optimiser": 0}, trials,
        names, {bps: own - bps * 1e-6 for bps in LADDER_BPS}, {"one bar late": own * 0.9, "delistings": own},
        {s: own for s in range(3)},
    )  # fmt: skip


def fired(changed: Case) -> list[str]:
    verdict = judge(changed, seed=1)
    assert not verdict.promote and verdict.word == "REJECT"
    return [v.name for v in verdict.vetoes if v.fired]


def test_skill_without_a_flaw_is_promoted() -> None:
    verdict = judge(case(), seed=1)
    assert verdict.promote and verdict.word == "PROMOTE"
    assert [t.passed for t in verdict.tests] == [True, True]
    assert not any(v.fired for v in verdict.vetoes)
    assert verdict.diagnostics.sharpe == pytest.approx(2.0, rel=1e-3)
    added = sum(r["added"] for r in verdict.diagnostics.regimes.values())
    assert added == pytest.approx(verdict.tests[0].value)  # regimes add up to the whole
    deflated, probabilistic = verdict.diagnostics.deflated, verdict.diagnostics.probabilistic
    assert deflated is not None and probabilistic is not None and 0.95 < deflated < probabilistic <= 1


def test_no_skill_is_rejected_by_the_test_and_not_by_a_veto() -> None:
    verdict = judge(case(0.3), seed=1)
    assert not verdict.promote and not any(t.passed for t in verdict.tests)
    assert all("not superior to" in reason for reason in verdict.reasons)
    assert verdict.diagnostics.detectable.sharpe > 0.3


def test_the_stronger_benchmark_counts() -> None:
    good = case()
    rng = np.random.default_rng(9)
    over_rule = 0.003 * rng.standard_t(5, good.tried["equal_weight"].shape)
    verdict = judge(replace(good, tried={**good.tried, "lightgbm_optimiser": over_rule - over_rule.mean(axis=0)}), seed=1)
    assert not verdict.promote and [t.passed for t in verdict.tests] == [True, False]


def test_each_veto_fires_on_its_own_flaw_and_says_what_it_saw() -> None:
    good = case()
    own = good.tried["equal_weight"][:, 0]
    flaws = {
        "cost ladder": replace(good, ladder={**good.ladder, 10.0: own - own.mean() * 1.01}),
        "one bar late": replace(good, stressed={**good.stressed, "one bar late": -own}),
        "delistings": replace(good, stressed={**good.stressed, "delistings": -own}),
        "looks ahead": replace(good, leak="noise after 2001-01-05 moves the decision"),
        "contaminated": replace(good, contaminated="ttm may know 2019"),
        "strong rule": replace(good, unopposed="no lightgbm_optimiser was walked"),
        "seeds": replace(good, seeds={0: own, 1: -own, 2: own}),
    }
    for name, changed in flaws.items():
        assert fired(changed) == [name]
    assert any("ttm may know 2019" in reason for reason in judge(flaws["contaminated"], seed=1).reasons)


def test_too_few_seeds_are_a_veto_and_none_are_needed_without_chance() -> None:
    good = case()
    own = good.tried["equal_weight"][:, 0]
    assert fired(replace(good, seeds={0: own})) == ["seeds"]
    assert judge(replace(good, seeds=None), seed=1).promote


def test_all_that_is_earned_in_one_regime_is_a_veto() -> None:
    good = case()
    tried = good.tried["equal_weight"].copy()
    rough = good.regimes == "rough"
    tried[rough, 0] -= tried[rough, 0].mean() + 1e-5
    tried[~rough, 0] += 1e-3
    only = replace(good, tried=dict.fromkeys(good.tried, tried))
    assert fired(only) == ["one regime"]
    assert fired(replace(good, regimes=np.full(BARS, "calm"))) == ["one regime"]


def test_a_stress_that_does_not_apply_is_said_and_fires_nothing() -> None:
    good = case()
    verdict = judge(replace(good, stressed={**good.stressed, "members alone": None}), seed=1)
    assert verdict.promote
    assert next(v for v in verdict.vetoes if v.name == "members alone").seen == "does not apply"


def test_more_trials_than_have_returns_deflate_further() -> None:
    good = case()
    few, many = (judge(replace(good, trials=n), seed=1).diagnostics for n in (20, 2000))
    assert many.effective_trials - few.effective_trials == 1980
    assert many.deflated is not None and few.deflated is not None and many.deflated < few.deflated


def test_tries_that_cannot_be_compared_shrink_the_level() -> None:
    """Of 2,000 tries 20 have returns on these bars: what passes among 20 need not pass among all."""
    found = case(1.2)
    assert all(t.passed for t in judge(found, seed=1).tests)
    hidden = judge(replace(found, trials=2000), seed=1).tests
    assert not any(t.passed for t in hidden) and hidden[0].critical > judge(found, seed=1).tests[0].critical


def test_a_diagnostic_that_cannot_be_said_stops_no_verdict() -> None:
    good = case()
    still = {name: x.copy() for name, x in good.tried.items()}
    for x in still.values():
        x[: BARS // 2 + 10, 1] = 0.0  # the benchmark itself for half of the blocks
    verdict = judge(replace(good, tried=still), seed=1)
    assert verdict.promote and verdict.diagnostics.pbo is None


def test_the_same_case_gives_the_same_verdict() -> None:
    assert judge(case(), seed=3) == judge(case(), seed=3)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"tried": {}, "column": {}}, "was not held against equal_weight"),
        ({"tried": {"equal_weight": np.zeros((BARS, 2))}}, "constant"),
        ({"tried": {"equal_weight": np.full((BARS, 2), np.nan)}}, "finite"),
        ({"tried": {"equal_weight": np.random.default_rng(0).normal(size=(10, 2))}}, "at least 20"),
    ],
)  # fmt: skip
def test_bars_that_cannot_carry_a_verdict_are_refused(changed: dict[str, object], says: str) -> None:
    with pytest.raises(DataError, match=says):
        judge(replace(case(), **changed), seed=0)
