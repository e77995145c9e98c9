"""A judge asked in both orders: planted favour and noise are found, and the label beneath them comes back."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from rlaif_ray.core import Cube, Opinion, OpinionTable
from rlaif_ray.errors import DataError
from rlaif_ray.feedback.labellers import Label, ask, labelled, noise_of, opinions_one_bar_later, report, timing_noise
from rlaif_ray.feedback.lessons import LabelNoise, judged_pairs
from rlaif_ray.feedback.outcomes import close
from rlaif_ray.feedback.preferences import PairTable
from rlaif_ray.feedback.yardstick import OutcomeTerms
from tests.desk import dense, desk_cube
from tests.judges import ScriptedJudge
from tests.markets import daily

MOMENT = np.datetime64("2020-01-02T21:00", "us")


@dataclass
class Says:
    """Answers what it is told to, first one order and then the other."""

    forward: float
    backward: float
    name: str = "says"

    def compare(self, first: Opinion, second: Opinion) -> float:
        return self.forward if first.author < second.author else self.backward


def opinion(author: str, p_up: float = 0.6, day: int = 0) -> Opinion:
    return Opinion(author, MOMENT + np.timedelta64(day, "D"), "X", 5, p_up, (), "", f"question {day}")


def conviction(o: Opinion) -> float:
    return o.p_up


def matched(n: int, seed: int) -> list[tuple[Opinion, Opinion]]:
    """Pairs on days of their own, the better one (by conviction) first half of the time."""
    rng = np.random.default_rng(seed)
    return [(opinion("a", x, day), opinion("b", y, day)) for day, (x, y) in enumerate(rng.uniform(0.1, 0.9, (n, 2)).tolist())]


def asked(judge: ScriptedJudge, two: list[tuple[Opinion, Opinion]]) -> list[Label]:
    return [ask(judge, *pair) for pair in two]


def test_both_orders_by_hand() -> None:
    label = ask(Says(0.9, 0.5), opinion("a"), opinion("b"))
    assert label.p_first == pytest.approx(0.7) and label.order_gap == pytest.approx(0.4) and not label.flipped
    partial = ask(Says(0.9, 0.7), opinion("a"), opinion("b"))
    assert partial.p_first == pytest.approx(0.6) and partial.flipped  # each was better when it stood first


def test_who_does_not_care_for_places_has_no_gap() -> None:
    label = ask(ScriptedJudge(conviction), opinion("a", 0.8), opinion("b", 0.3))
    assert (
        label.order_gap == pytest.approx(0.0, abs=1e-15)
        and label.p_first == pytest.approx(label.forward)
        and label.forward > 0.6
        and label.judge == "scripted"
    )


def test_swapped_labels_negate() -> None:
    a, b = opinion("a", 0.8), opinion("b", 0.3)
    judge = ScriptedJudge(conviction, bias=0.1, noise=0.3)
    label, other = ask(judge, a, b), ask(judge, b, a)
    assert other == label.swapped() and other.p_first == pytest.approx(1 - label.p_first) and other.order_gap == label.order_gap
    told, mirrored = (labelled([x], tie=0.01, asked_at=MOMENT)[0] for x in (label, other))
    assert (told.chosen, told.rejected, told.margin) == (mirrored.chosen, mirrored.rejected, pytest.approx(mirrored.margin))


def test_a_planted_favour_is_found_and_the_label_beneath_it_comes_back() -> None:
    two = matched(400, seed=0)
    labels = asked(ScriptedJudge(conviction, bias=0.2, scale=1.0), two)
    better = np.array([x.p_up > y.p_up for x, y in two])
    one_order = np.array([label.forward > 0.5 for label in labels])
    assert 0.5 < (one_order == better).mean() < 0.9  # asked once, the favour decides what is close
    assert all((label.p_first > 0.5) == right for label, right in zip(labels, better, strict=True))
    found = report(labels, [x.p_up - y.p_up for x, y in two])
    assert found.position_bias.value == pytest.approx(0.4) and found.position_bias.low > 0.39  # 0.2 in each of two orders
    assert found.flips.value == np.mean([label.flipped for label in labels]) > 0.3
    assert found.agreement.value == 1.0 and found.n_labels == 400 and found.judge == "scripted"
    assert found.noise.eps == pytest.approx(0.0, abs=1e-12)  # a favour is no noise


def test_a_fair_judge_is_not_said_to_favour_a_place() -> None:
    """Noise in both orders leaves the mean gap at 0: the interval holds it in at least 27 of 30 seeds."""
    held = 0
    for seed in range(30):
        found = report(asked(ScriptedJudge(conviction, noise=0.2, scale=0.1, seed=seed), matched(150, seed))).position_bias
        held += found.low <= 0.0 <= found.high
    assert held >= 27


def test_planted_noise_of_a_judge_is_found_whatever_its_favour() -> None:
    for bias in (0.0, 0.05):
        judge = ScriptedJudge(conviction, bias=bias, noise=0.15, scale=0.02, seed=3)
        two = [(x, y) for x, y in matched(1500, seed=4) if abs(x.p_up - y.p_up) > 0.1]  # the judge is sure of each
        noise = report(asked(judge, two)).noise
        assert abs(noise.eps - 0.15) < 3 * noise.standard_error < 0.05


def test_agreement_is_with_the_outcomes_and_says_nothing_of_what_they_do_not_tell() -> None:
    two = matched(4, seed=1)
    labels = [Label("j", *pair, forward, 0.5) for pair, forward in zip(two, (0.9, 0.9, 0.1, 0.5), strict=True)]
    assert report(labels, [1.0, -1.0, -1.0, 1.0]).agreement.value == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    assert report(labels, [1.0, np.nan, 0.0, np.nan]).agreement.value == 1.0
    assert np.isnan(report(labels).agreement.value)


def test_labels_of_one_moment_are_one_draw() -> None:
    a, b = opinion("a"), opinion("b")
    once = [Label("j", replace(a, as_of=MOMENT + np.timedelta64(d, "D")), b, 0.5 + g, 0.5) for d, g in enumerate((0.1, -0.1, 0.3, 0.0))]
    single, copied = report(once).position_bias, report(once * 10).position_bias
    assert (single.value, single.low, single.high) == pytest.approx((copied.value, copied.low, copied.high))
    assert np.isnan(report(once[:1]).position_bias.low)


def test_a_judges_labels_become_preferences() -> None:
    labels = asked(ScriptedJudge(conviction, name="house style"), [(opinion("a", 0.4), opinion("b", 0.8)), (opinion("a"), opinion("b"))])
    asked_at = MOMENT + np.timedelta64(30, "D")
    (told,) = labelled(labels, tie=0.01, asked_at=asked_at)  # of two like opinions the judge cannot tell
    assert (told.chosen.author, told.rejected.author, told.judge) == ("b", "a", "house style")
    assert told.margin == pytest.approx(1 - 2 * labels[0].p_first) and told.closed_at == asked_at
    assert told.prompt_hash == told.chosen.prompt_hash == told.rejected.prompt_hash


def test_what_cannot_be_judged_is_refused() -> None:
    a, b = opinion("a"), opinion("b")
    for other in (replace(b, symbol="Y"), opinion("b", day=1), replace(b, prompt_hash="z"), replace(b, horizon_bars=20)):
        with pytest.raises(DataError, match="expected one question"):
            ask(Says(0.5, 0.5), a, other)
    with pytest.raises(DataError, match="with itself"):
        ask(Says(0.5, 0.5), a, a)
    for answer in (1.2, -0.1, float("nan")):
        with pytest.raises(DataError, match=r"says answers .*expected a probability"):
            ask(Says(0.5, answer), a, b)
    fair = ask(Says(0.9, 0.2), a, b)
    with pytest.raises(DataError, match="which are later"):
        labelled([fair], tie=0.01, asked_at=MOMENT - np.timedelta64(1, "s"))
    with pytest.raises(DataError, match="tie is 0"):
        labelled([fair], tie=0.0, asked_at=MOMENT)
    with pytest.raises(DataError, match="0 labels by 0 judges"):
        report([])
    with pytest.raises(DataError, match="by 2 judges"):
        report([fair, replace(fair, judge="another")])
    with pytest.raises(DataError, match="2 margins for 1 labels"):
        report([fair], [1.0, 2.0])


def test_two_raters_by_hand() -> None:
    # of 100 pairs they disagree on 18: 2 x 0.1 x 0.9
    a = np.ones(100, bool)
    b = np.arange(100) >= 18
    noise = noise_of(a, b)
    assert noise.eps == pytest.approx(0.1) and noise.disagreement == 0.18 and noise.n_pairs == 100
    assert noise_of(a, a).eps == 0.0 and noise_of(a, ~a).eps == 0.5 and np.isinf(noise_of(a, ~a).standard_error)
    assert np.isnan(noise_of(a[:0], b[:0]).eps)
    with pytest.raises(DataError, match="two bool arrays"):
        noise_of(a, np.ones(100))


@pytest.mark.parametrize("eps", [0.02, 0.1, 0.3])
def test_planted_noise_is_recovered_within_its_standard_error(eps: float) -> None:
    """Over 200 draws of 2,000 pairs the error in standard errors has mean 0 and spread 1, as it should."""
    z = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        truth = rng.random(2000) < 0.5
        a, b = (truth ^ (rng.random(2000) < eps) for _ in range(2))
        noise = noise_of(a, b)
        z.append((noise.eps - eps) / noise.standard_error)
    assert abs(np.mean(z)) < 0.25 and 0.85 < np.std(z) < 1.15


def at_two_times(cube: Cube, opinions: OpinionTable, metric: str = "score", tie: float = 0.01) -> tuple[PairTable, PairTable]:
    both = opinions, opinions_one_bar_later(opinions, cube)
    now, later = (judged_pairs(close(o, cube, OutcomeTerms(0.0)), o, tie=tie, metric=metric) for o in both)
    return now, later


def walk(seed: int, horizon_bars: int) -> tuple[Cube, OpinionTable]:
    """A market of independent random walks, and two voices of whom one always buys and one always sells."""
    rng = np.random.default_rng(seed)
    cube = daily(100 * np.exp(np.cumsum(0.01 * rng.standard_normal((1200, 10)), axis=0)))
    p_up = np.broadcast_to([0.6, 0.4], (1200, 10, 2))
    return cube, OpinionTable(cube.known_at, cube.symbols, ("buys", "sells"), p_up, horizon_bars)


@pytest.mark.parametrize("horizon_bars", [1, 5, 20])
def test_on_a_random_walk_timing_is_worth_the_bars_that_are_not_shared(horizon_bars: int) -> None:
    """Sums over h bars, one bar apart, are normal with correlation (h-1)/h, and differ in sign with chance arccos(.)/pi."""
    cube, opinions = walk(horizon_bars, horizon_bars)
    noise = timing_noise(*at_two_times(cube, opinions), rows=slice(0, 1200))
    expected = np.arccos((horizon_bars - 1) / horizon_bars) / np.pi
    assert abs(noise.disagreement - expected) < 0.02
    assert noise.n_pairs > 10_000 and (noise.eps > 0.4 if horizon_bars == 1 else noise.eps == pytest.approx(expected / 2, rel=0.2))


def test_timing_knows_nothing_of_rows_after_the_fit() -> None:
    """The canary: the pair opened at row 94 closes at 99, but judged one bar later only at 100, which is after the cut."""
    cube, opinions = walk(0, 5)
    now, later = at_two_times(cube, opinions)
    rows = slice(0, 100)
    spoilt = later.take(later.closed_row < 100)
    assert timing_noise(now, spoilt, rows=rows) == timing_noise(now, later, rows=rows)
    counted = later.take(later.closed_row < 99)
    fewer = timing_noise(now, counted, rows=rows).n_pairs
    assert timing_noise(now, later, rows=rows).n_pairs - fewer == 30  # the last row that counts: ten symbols, two voices, climatology


def test_timing_of_a_real_roster_lies_between_no_noise_and_a_coin() -> None:
    cube = desk_cube(0, rows=300)
    opinions = dense(cube)
    noise = timing_noise(*at_two_times(cube, opinions), rows=slice(0, 300))
    assert 0.0 < noise.eps < 0.5 and noise.n_pairs > 500 and noise.standard_error < 0.05


def test_timing_is_that_of_a_loop_over_all_pairs() -> None:
    cube = desk_cube(0, rows=300)
    for metric, tie in (("score", 0.05), ("net", 0.02), ("drawdown", 0.02)):
        now, later = at_two_times(cube, dense(cube), metric, tie)
        won = {}
        for shift, table in ((0, now), (1, later)):
            columns = table.opened_row - shift, table.closed_row, table.asset, table.chosen, table.rejected
            won[shift] = {
                (row, asset, *sorted((c, r))): c for row, closed, asset, c, r in zip(*(x.tolist() for x in columns), strict=True)
                if row >= 20 and closed - shift + 1 < 250
            }  # fmt: skip
        both = won[0].keys() & won[1].keys()
        found = timing_noise(now, later, rows=slice(20, 250))
        assert found.n_pairs == len(both) > 200
        assert found.disagreement == pytest.approx(np.mean([won[0][k] != won[1][k] for k in both]))


def test_a_desk_of_one_has_its_noise_measured_against_climatology() -> None:
    cube, opinions = walk(5, 5)
    alone = replace(opinions, authors=("buys",), p_up=opinions.p_up[..., :1])
    found = LabelNoise(close(alone, cube, OutcomeTerms(0.0)), alone, cube, OutcomeTerms(0.0), tie=0.01, stated=None)
    expected = np.arccos(4 / 5) / np.pi
    assert found.smoothing(slice(0, 1200)) == pytest.approx(expected / 2, rel=0.2)
    nothing = LabelNoise(close(alone, cube, OutcomeTerms(0.0)), alone, cube, OutcomeTerms(0.0), tie=0.01, stated=0.07)
    assert nothing.smoothing(slice(0, 1200)) == 0.07


def test_noise_is_that_of_the_metric_that_is_learnt_by() -> None:
    """The larger position-free drawdown of five bars moves less from bar to bar than the sign of their sum does, and is never wrong
    against climatology, which has none: the noise of its labels is another than that of the score's."""
    cube, opinions = walk(6, 5)
    terms = OutcomeTerms(0.0)
    now, rows = close(opinions, cube, terms), slice(0, 1200)
    eps = {
        metric: LabelNoise(now, opinions, cube, terms, tie=0.005, stated=None, metric=metric).smoothing(rows)
        for metric in ("score", "net", "drawdown")
    }
    assert eps["drawdown"] < 0.5 * eps["score"]
    for metric in eps:
        assert eps[metric] == timing_noise(*at_two_times(cube, opinions, metric, 0.005), rows=rows).eps > 0.0
    assert len(set(eps.values())) == 3


def test_pairs_of_two_horizons_are_refused() -> None:
    cube, opinions = walk(0, 5)
    now, _ = at_two_times(cube, opinions)
    _, later = at_two_times(cube, replace(opinions, horizon_bars=20))
    with pytest.raises(DataError, match=r"\[5, 20\] bars; expected those of the same opinions"):
        timing_noise(now, later, rows=slice(0, 100))
    assert timing_noise(now.take(now.date < 0), later.take(later.date < 0), rows=slice(0, 100)).n_pairs == 0


def test_the_last_row_has_no_next_bar() -> None:
    cube, opinions = walk(0, 5)
    later = opinions_one_bar_later(opinions, cube)
    assert np.array_equal(later.as_of, cube.known_at[1:]) and np.array_equal(later.p_up, opinions.p_up[:-1])
