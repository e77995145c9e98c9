"""Pairs by hand: who wins, what ties, who may meet whom, what may be used when and how much it says."""

from dataclasses import replace

import numpy as np
import pytest

from rlaif_ray.core import Cube, Opinion, OpinionTable, Voice
from rlaif_ray.errors import DataError
from rlaif_ray.feedback.outcomes import OutcomeTable, close, judge
from rlaif_ray.feedback.preferences import CLIMATOLOGY, HEADS, KINDS, PairTable, pairs, preference
from rlaif_ray.feedback.yardstick import OutcomeTerms
from tests.desk import ROSTER, ask, dense, desk_cube, planted
from tests.laws import assert_fit

NAN = float("nan")


@pytest.fixture(scope="module")
def judged():
    cube = desk_cube(0)
    out = close(dense(cube), cube, OutcomeTerms(0.0))
    return ask(cube), out, pairs(out, tie=0.01)


def outcomes_of(score, drawdown=None, horizon_bars: int = 5, every_bars: int = 5, authors: tuple[str, ...] = ()) -> OutcomeTable:
    """Outcomes with the scores (T,A,K) that are given; the other figures are 0."""
    score = np.asarray(score, np.float64)
    t, a, k = score.shape
    opened = every_bars * np.arange(t)
    moments = np.datetime64("2020-01-01T21:00", "us") + np.timedelta64(1, "D") * opened
    flat, by_symbol = np.zeros(score.shape), np.zeros((t, a))
    fall = flat if drawdown is None else np.asarray(drawdown, np.float64)
    return OutcomeTable(
        moments, opened, opened + horizon_bars, moments + np.timedelta64(horizon_bars, "D"), tuple("XYZ"[:a]), authors or tuple("abcd"[:k]),
        horizon_bars, by_symbol, by_symbol + 0.5, score, flat, flat, flat, flat, fall, flat, np.zeros((t, a), np.int8),
    )  # fmt: skip


def said_of(outcomes: OutcomeTable, **more) -> OpinionTable:
    p_up = np.where(np.isfinite(outcomes.score), 0.6, np.nan)
    return OpinionTable(outcomes.as_of, outcomes.symbols, outcomes.authors, p_up, outcomes.horizon_bars, **more)


def sides(table: PairTable) -> list[tuple[int, int]]:
    return list(zip(table.chosen.tolist(), table.rejected.tolist(), strict=True))


def test_three_voices_and_climatology_by_hand() -> None:
    # a gains 0.3 on climatology, b loses 0.1, c abstained: a beats b and climatology, climatology beats b
    table = pairs(outcomes_of([[[0.3, -0.1, NAN]]]), tie=0.01)
    assert sides(table) == [(0, 1), (0, CLIMATOLOGY), (CLIMATOLOGY, 1)]
    assert np.allclose(table.margin, [0.4, 0.3, 0.1])
    assert [KINDS[k] for k in table.kind] == ["analysts", "climatology", "climatology"]
    assert table.rivals.tolist() == [True, False, False]
    assert sides(table.of_kind("climatology")) == [(0, CLIMATOLOGY), (CLIMATOLOGY, 1)]
    assert len(table.of_kind(*KINDS)) == 3 and len(table.of_kind("rounds")) == 0
    with pytest.raises(DataError, match=r"'rivals'.*analysts, origins"):
        table.of_kind("rivals")


def test_every_two_who_spoke_make_a_pair_won_by_the_better_score(judged) -> None:
    _, out, table = judged
    padded = np.concatenate([out.score, np.zeros((*out.score.shape[:2], 1))], axis=-1)
    chosen, rejected = (padded[table.date, table.asset, k] for k in (table.chosen, table.rejected))
    assert np.array_equal(chosen - rejected, table.margin) and (table.margin > 0).all()
    spoke = np.isfinite(out.score).sum(axis=-1)
    duels = table.take(table.rivals)
    assert 0.8 * (spoke * (spoke - 1) / 2).sum() < len(duels) <= (spoke * (spoke - 1) / 2).sum()
    assert 0.5 * spoke.sum() < len(table) - len(duels) <= spoke.sum()
    assert (np.diff(table.opened_row) >= 0).all()


def test_bulk_pairs_are_those_of_a_loop_over_all_opinions() -> None:
    rng = np.random.default_rng(0)
    shape = 9, 2, 4
    score = np.where(rng.random(shape) < 0.2, NAN, rng.normal(0, 0.1, shape))
    out = outcomes_of(score, rng.uniform(0, 0.1, shape))
    prompts = rng.integers(1, 3, shape).astype(np.uint64)
    words = rng.integers(1, 5, (*shape, 1)).astype(np.float32)
    table = pairs(out, tie=0.02, opinions=said_of(out, prompts=prompts, traits=words, trait_names=("log_words",)))
    found = set()
    for t, a, i in np.argwhere(np.isfinite(score)):
        for j in (*range(i + 1, 4), CLIMATOLOGY):
            asked_alike = j == CLIMATOLOGY or prompts[t, a, i] == prompts[t, a, j]
            gap = score[t, a, i] - (0.0 if j == CLIMATOLOGY else score[t, a, j])
            # it did not rise and a half is usual, so 1 - p_up = exp(score) / 2; had it risen, p_up would have scored
            risen = [0.0 if k == CLIMATOLOGY else np.log(2 - np.exp(score[t, a, k])) for k in (i, j)]
            if not (asked_alike and max(abs(gap), abs(risen[0] - risen[1])) >= 0.02):
                continue
            won, lost = (i, j) if gap > 0 else (j, i)
            fall = [NAN if k == CLIMATOLOGY else out.drawdown[t, a, k] for k in (won, lost)]
            length = [NAN if k == CLIMATOLOGY else words[t, a, k, 0] for k in (won, lost)]
            agrees = (1, int(fall[0] < fall[1]) - int(fall[0] > fall[1]), int(length[0] < length[1]) - int(length[0] > length[1]))
            found.add((int(t), int(a), int(won), int(lost), float(abs(gap)), agrees))
    columns = (table.date, table.asset, table.chosen, table.rejected, table.margin, map(tuple, table.agrees.tolist()))
    assert set(zip(*(c.tolist() if isinstance(c, np.ndarray) else c for c in columns), strict=True)) == found
    assert len(table) == len(found) > 50


def test_ties_are_dropped_by_the_stated_threshold(judged) -> None:
    _, out, table = judged
    by_score = len(pairs(out, tie=0.1, metric=out.score))  # of a metric of one's own the actual difference decides
    assert by_score == int((table.margin >= 0.1).sum()) < len(pairs(out, tie=0.1)) < len(table)
    for none in (0.0, NAN):
        with pytest.raises(DataError, match="tie"):
            pairs(out, tie=none)


def test_a_pair_is_told_apart_by_what_was_said_whatever_came_of_it() -> None:
    """.605 and .600 are 0.0083 nats apart if it rises and 0.0126 if it does not: one tie keeps both outcomes, or neither."""
    rose = np.log([0.605, 0.600]) - np.log(0.5)
    fell = np.log([0.395, 0.400]) - np.log(0.5)
    assert np.allclose([rose[0] - rose[1], fell[1] - fell[0]], [0.0083, 0.0126], atol=5e-5)
    out = outcomes_of([[rose, fell]])
    out = replace(out, residual=np.array([[0.01, -0.01]]))
    for tie, expected in ((0.008, [(0, 1), (1, 0)]), (0.010, [(0, 1), (1, 0)]), (0.013, [])):
        duels = pairs(out, tie=tie).of_kind("analysts")
        assert sides(duels) == expected
    kept = pairs(out, tie=0.010).of_kind("analysts")
    assert np.allclose(kept.margin, [0.0083, 0.0126], atol=5e-5)  # the margin is what came of it
    # climatology says 0.6 here: .605 is as near to it, and is told apart from it in both outcomes or in none
    usual = replace(out, climatology=np.full((1, 2), 0.6), score=np.log([[[0.605 / 0.6], [0.395 / 0.4]]]), authors=("a",),
                    drawdown=np.zeros((1, 2, 1)))  # fmt: skip
    assert sides(pairs(usual, tie=0.010)) == [(0, CLIMATOLOGY), (CLIMATOLOGY, 0)] and not len(pairs(usual, tie=0.013))


def test_where_the_other_outcome_is_not_known_the_actual_difference_decides() -> None:
    """Who says quantiles is judged by them; and a metric of one's own says nothing of what did not come."""
    out = outcomes_of([[[0.010, 0.002]]])  # 0.0080 apart; had it risen, 0.0081: log(2 - exp(0.002)) - log(2 - exp(0.010))
    assert len(pairs(out, tie=0.00805).of_kind("analysts")) == 1
    quantiles = np.array([[[[-0.1, 0.1], [NAN, NAN]]]])
    said = said_of(out, levels=(0.1, 0.9), quantiles=quantiles)
    assert len(pairs(out, tie=0.00805, opinions=said).of_kind("analysts")) == 0
    assert len(pairs(out, tie=0.0079, opinions=said).of_kind("analysts")) == 1
    assert len(pairs(out, tie=0.00805, metric=out.score).of_kind("analysts")) == 0
    far = outcomes_of([[[1.2, 1.205]]])  # more than any probability can be worth: quantiles, though nobody says so
    assert len(pairs(far, tie=0.01).of_kind("analysts")) == 0


def told(p_up: tuple[float, float], usual: float, truth: float, n: int, seed: int) -> OutcomeTable:
    """`n` outcomes of two constant forecasts, of which a share `truth` rises."""
    up = np.random.default_rng(seed).random((n, 1)) < truth
    residual, said = np.where(up, 0.01, -0.01), np.broadcast_to(p_up, (n, 1, 2))
    climatology = np.full((n, 1), usual)
    return replace(outcomes_of(judge(said, residual, climatology)[0]), residual=residual, climatology=climatology)


@pytest.mark.parametrize("truth", [0.2, 0.45, 0.5, 0.58, 0.65, 0.8])
@pytest.mark.parametrize(("p_up", "usual"), [((0.605, 0.600), 0.5), ((0.395, 0.400), 0.53), ((0.72, 0.715), 0.6), ((0.505, 0.5), 0.5)])
def test_the_mean_margin_has_the_sign_of_the_expected_difference_near_the_tie(p_up, usual: float, truth: float) -> None:
    """Proper: whoever has the higher expected score is preferred by the mean margin, if they meet at all. So of climatology."""
    out = told(p_up, usual, truth, 40_000, 0)
    (a, b), q = np.log(p_up), np.log1p(-np.array(p_up))
    ties = (abs(a - b), abs(q[0] - q[1]))
    assert min(ties) < 0.5 * sum(ties) <= max(ties)  # a tie between the two: one outcome tells them apart, the other does not
    table = pairs(out, tie=0.5 * sum(ties)).of_kind("analysts")
    mean = np.where(table.chosen == 0, table.margin, -table.margin).sum() / 40_000
    expected = truth * (a - b) + (1 - truth) * (q[0] - q[1])
    assert len(table) == 40_000 and abs(mean - expected) < 4 * sum(ties) * np.sqrt(truth * (1 - truth) / 40_000)
    if abs(expected) > 4 * sum(ties) * 0.5 / np.sqrt(40_000):
        assert np.sign(mean) == np.sign(expected)
    # the canary: by the actual difference alone only one outcome's pairs are left, and one voice wins them all
    by_outcome = pairs(out, tie=0.5 * sum(ties), metric=out.score).of_kind("analysts")
    assert 0 < len(by_outcome) < 40_000 and len(np.unique(by_outcome.chosen)) == 1


def test_swapped_pairs_negate() -> None:
    """Less is more: with the metric negated, every pair stands the other way round, by the same margin."""
    score = np.random.default_rng(0).normal(0, 0.1, (20, 3, 4))
    out = outcomes_of(score)
    table, mirrored = pairs(out, tie=0.01, metric=score), pairs(out, tie=0.01, metric=-score)
    assert np.array_equal(table.chosen, mirrored.rejected) and np.array_equal(table.rejected, mirrored.chosen)
    assert np.array_equal(table.margin, mirrored.margin) and len(table) > 400
    assert all(np.array_equal(getattr(table, name), getattr(mirrored, name)) for name in ("date", "asset", "kind", "weight"))
    assert not (table.agrees[:, 1:] != -mirrored.agrees[:, 1:]).any()


def test_whose_column_is_whose_does_not_matter() -> None:
    score = np.random.default_rng(1).normal(0, 0.1, (20, 2, 4))
    order = np.array([2, 0, 3, 1])
    table, moved = pairs(outcomes_of(score), tie=0.01), pairs(outcomes_of(score[..., order]), tie=0.01)
    back = np.array([*order, CLIMATOLOGY])
    one = set(zip(table.date, table.asset, table.chosen, table.rejected, table.margin, strict=True))
    assert one == set(zip(moved.date, moved.asset, back[moved.chosen], back[moved.rejected], moved.margin, strict=True))


def test_voices_meet_by_kind() -> None:
    voices = Voice("a"), Voice("a", round=1), Voice("a", sample=1), Voice("b"), Voice("c", "thesis")
    out = outcomes_of([[[0.5, 0.4, 0.3, 0.2, 0.1]]], authors=tuple(v.name for v in voices))
    table = pairs(out, tie=0.01, opinions=said_of(out, voices=voices))
    kinds = dict(zip(sides(table), (KINDS[k] for k in table.kind), strict=True))
    assert kinds[0, 1] == "rounds" and kinds[0, 2] == "samples" and kinds[1, 2] == "rounds"
    assert kinds[0, 3] == kinds[1, 3] == kinds[2, 3] == "analysts"
    assert {kinds[k, 4] for k in range(4)} == {"origins"} and {kinds[k, CLIMATOLOGY] for k in range(5)} == {"climatology"}
    assert len(kinds) == 15


def test_voices_that_were_asked_differently_make_no_pair() -> None:
    out = outcomes_of([[[0.3, -0.1, 0.1]]])
    asked = said_of(out, prompts=np.array([[[7, 7, 8]]], np.uint64))
    assert sides(pairs(out, tie=0.01, opinions=asked)) == [(0, 1), (0, CLIMATOLOGY), (CLIMATOLOGY, 1), (2, CLIMATOLOGY)]
    assert len(pairs(out, tie=0.01, opinions=said_of(out))) == len(pairs(out, tie=0.01)) == 6


def test_heads_agree_where_less_is_better() -> None:
    # a beats b and has the larger drawdown and the longer text; b and c say nothing else alike
    out = outcomes_of([[[0.3, 0.1, -0.1]]], drawdown=[[[0.05, 0.02, 0.02]]])
    traits = np.array([[[[2.0, 1.0], [1.0, 1.0], [NAN, NAN]]]], np.float32)
    table = pairs(out, tie=0.01, opinions=said_of(out, traits=traits, trait_names=("log_words", "claims")))
    agrees = dict(zip(sides(table), table.agrees.tolist(), strict=True))
    assert HEADS == ("outcome", "risk", "brevity")
    assert agrees[0, 1] == [1, -1, -1] and agrees[0, 2] == [1, -1, 0] and agrees[1, 2] == [1, 0, 0]
    assert agrees[0, CLIMATOLOGY] == agrees[CLIMATOLOGY, 2] == [1, 0, 0]  # who takes no position would always have the smaller drawdown


def test_a_metric_of_ones_own_decides_and_is_not_asked_where_nothing_has_closed() -> None:
    out = outcomes_of([[[0.3, -0.1, NAN]]])
    table = pairs(out, tie=0.01, metric=np.array([[[-1.0, 2.0, 9.0]]]))
    assert sides(table) == [(1, 0), (CLIMATOLOGY, 0), (1, CLIMATOLOGY)] and table.margin.tolist() == [3.0, 1.0, 2.0]
    assert sides(pairs(out, tie=0.01, metric=np.array([[[NAN, 2.0, 9.0]]]))) == [(1, CLIMATOLOGY)]
    with pytest.raises(DataError, match=r"shape \(1, 3\); expected \(T,A,K\) = \(1, 1, 3\)"):
        pairs(out, tie=0.01, metric=np.zeros((1, 3)))


def test_what_is_not_the_table_that_was_judged_is_refused() -> None:
    out = outcomes_of([[[0.3, -0.1]], [[0.3, -0.1]]])
    said = said_of(out)
    for other in (replace(said, symbols=("Q",)), replace(said, authors=("a", "z"))):
        with pytest.raises(DataError, match="other authors or symbols"):
            pairs(out, tie=0.01, opinions=other)
    with pytest.raises(DataError, match="other moments"):
        pairs(out, tie=0.01, opinions=replace(said, as_of=said.as_of + np.timedelta64(1, "s")))


def test_nothing_judged_is_no_pairs() -> None:
    for out in (outcomes_of(np.full((3, 2, 2), NAN)), outcomes_of(np.zeros((0, 2, 2))), outcomes_of(np.zeros((3, 2, 2)))):
        table = pairs(out, tie=0.01)
        assert len(table) == len(table.inside(slice(0, 10))) == 0 and table.agrees.shape == (0, len(HEADS))


def test_horizons_that_touch_do_not_overlap_and_those_that_overlap_share() -> None:
    score = np.tile([[[0.3, -0.3]]], (40, 2, 1))
    score[::2, 1] = NAN  # the second symbol is spoken of every other time
    assert (pairs(outcomes_of(score, horizon_bars=5), tie=0.01).weight == 1.0).all()
    table = pairs(outcomes_of(score, horizon_bars=20), tie=0.01)
    middle = (table.date > 5) & (table.date < 34)
    assert np.allclose(table.weight[middle & (table.asset == 0)], 1 / 4)
    assert np.allclose(table.weight[middle & (table.asset == 1)], 1 / 2)
    # the first of four: five bars of its own, then shared by two, three and four
    assert np.allclose(table.weight[(table.date == 0) & (table.asset == 0)], (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_opinions_without_a_pair_take_no_weight_from_others() -> None:
    score = np.tile([[[0.3, -0.3]]], (4, 1, 1))
    score[1:3] = 0.0  # they tie
    assert (pairs(outcomes_of(score, horizon_bars=15), tie=0.01).weight == 1.0).all()
    assert (pairs(outcomes_of(score, horizon_bars=20), tie=0.01).weight == (3 + 1 / 2) / 4).all()


def test_a_pair_that_closes_after_the_cut_never_enters(judged) -> None:
    """The canary: opened at row 145, closing at row 150; a fit that ends before row 150 must not have it."""
    _, _, table = judged
    assert 145 in table.inside(slice(0, 151)).opened_row
    assert 145 not in table.inside(slice(0, 150)).opened_row
    assert table.inside(slice(20, 150)).opened_row.min() >= 20


def test_noise_after_the_fit_changes_no_pair_that_it_may_know() -> None:
    """All columns, weights too. The canaries: pairs by their opening alone, and pairs cut without being weighed anew."""
    cube, end = desk_cube(3, rows=240), 150

    def table(c: Cube) -> PairTable:
        opinions = replace(dense(c), horizon_bars=20)
        out = close(opinions, c, OutcomeTerms(0.0))
        return pairs(out, tie=0.1, metric=out.net, opinions=opinions)

    def inside(c: Cube) -> dict[str, np.ndarray]:
        return vars(table(c).inside(slice(20, end + 1)))

    def open_ended(c: Cube) -> np.ndarray:
        made = table(c)
        return made.take(made.opened_row <= end).margin

    def weighed_by_the_future(c: Cube) -> np.ndarray:
        made = table(c)
        return made.take((made.opened_row >= 20) & (made.closed_row <= end)).weight

    def noise() -> np.random.Generator:
        return np.random.default_rng(0)

    assert_fit(inside, cube, end, noise())
    assert len(inside(cube)["margin"]) > 300
    for canary in (open_ended, weighed_by_the_future):
        with pytest.raises(AssertionError, match="saw past its end"):
            assert_fit(canary, cube, end, noise())


def test_planted_authors_win_as_often_as_they_are_right() -> None:
    """A is right 70% of the time and B 50%, with like confidence: against climatology both win just as often as that."""
    table = pairs(planted(0, (0.7, 0.5), (0.7, 0.5)).outcomes, tie=1e-9).of_kind("climatology")
    for author, right in enumerate((0.7, 0.5)):
        won = (table.chosen == author).sum() / ((table.chosen == author) | (table.rejected == author)).sum()
        assert abs(won - right) < 3 * np.sqrt(right * (1 - right) / 4000)


def test_the_value_form_shares_its_question_and_negates_when_swapped(judged) -> None:
    said, out, table = judged
    by_key = {(o.as_of, o.symbol, o.voice.name): o for o in said if isinstance(o, Opinion)}
    duels = table.take(table.rivals)
    pair = preference(duels, 7, out, by_key)
    assert pair.chosen.prompt_hash == pair.rejected.prompt_hash == pair.prompt_hash
    assert pair.margin == duels.margin[7] > 0 and pair.closed_at == out.of(pair.chosen).closed_at
    swapped = pair.swapped()
    assert (swapped.chosen, swapped.rejected, swapped.margin) == (pair.rejected, pair.chosen, -pair.margin)
    assert swapped.swapped() == pair


def test_a_pair_of_other_evidence_or_against_climatology_is_no_preference(judged) -> None:
    said, out, table = judged
    by_key = {(o.as_of, o.symbol, o.voice.name): o for o in said if isinstance(o, Opinion)}
    duels = table.take(table.rivals)
    key = out.as_of[duels.date[0]], out.symbols[duels.asset[0]], ROSTER[duels.chosen[0]]
    with pytest.raises(DataError, match="different evidence"):
        preference(duels, 0, out, by_key | {key: replace(by_key[key], prompt_hash="another")})
    with pytest.raises(DataError, match="climatological forecast"):
        preference(table, int(np.flatnonzero(~table.rivals)[0]), out, by_key)
