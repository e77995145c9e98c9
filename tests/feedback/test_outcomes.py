"""Outcomes by hand, on a market whose chances are known, in a table and in a stream, and what may be known when."""

import json
from dataclasses import fields, replace
from statistics import NormalDist

import numpy as np
import pyarrow as pa
import pytest

from rlaif_ray.agents.records import to_arrow
from rlaif_ray.core import Abstention, Opinion, OpinionTable
from rlaif_ray.errors import DataError, MissingDataError, SchemaError
from rlaif_ray.feedback.outcomes import FIGURES, OUTCOME_SCHEMA, close, judge_records, opinion_id, opinion_ids, tabled
from rlaif_ray.feedback.yardstick import VOID, OutcomeTerms, Yardstick
from tests.desk import ask, dense, desk_cube
from tests.laws import assert_apply
from tests.markets import daily

NAN = float("nan")
WALKS = OutcomeTerms(0.0, beta_bars=1_000_000)  # every beta is 1


def table(cube, p_up, rows, horizon_bars=1, authors=("a",)) -> OpinionTable:
    return OpinionTable(cube.known_at[rows], cube.symbols, authors, np.asarray(p_up, float), horizon_bars)


def test_two_symbols_by_hand() -> None:
    # A doubles, B stands still: the mean is +50%, so A beats it by 0.5 and B trails by 0.5
    cube = daily([[10, 10], [20, 10], [20, 10]])
    out = close(table(cube, [[[0.8], [0.8]]], [0]), cube, OutcomeTerms(0.001))
    assert out.residual.tolist() == [[0.5, -0.5]]
    assert np.allclose(out.score[0, :, 0], [np.log(0.8 / 0.5), np.log(0.2 / 0.5)])
    assert np.allclose(out.gross[0, :, 0], [0.5, -0.5]) and np.allclose(out.net[0, :, 0], [0.498, -0.502])
    assert out.closed_row.tolist() == [1] and out.closed_at[0] == cube.known_at[1]


def test_dividends_and_splits_count_as_return() -> None:
    split, paid = np.ones((3, 2)), np.zeros((3, 2))
    split[1, 0], paid[2, 1] = 2.0, 1.0
    cube = daily([[10, 10], [5, 10], [5, 9]], splits=split, dividends=paid)
    assert np.allclose(Yardstick.of(cube, 2, OutcomeTerms(0.0)).residual[0], 0.0)


def test_a_right_sell_beats_a_wrong_buy_in_score_and_in_money() -> None:
    cube = daily([[10, 10], [8, 10], [8, 10]])
    out = close(table(cube, [[[0.3, 0.7], [NAN, NAN]]], [0], authors=("sells", "buys")), cube, OutcomeTerms(0.0))
    assert out.score[0, 0, 0] > 0 > out.score[0, 0, 1]
    assert np.allclose(out.gross[0, 0], [0.1, -0.1])
    assert out.hit[0, 0].tolist() == [1.0, 0.0]


def test_costs_eat_a_tiny_right_call_and_leave_its_score_alone() -> None:
    cube = daily([[10000, 10000], [10002, 10000]])
    free, dear = (close(table(cube, [[[0.7], [0.3]]], [0]), cube, OutcomeTerms(c)) for c in (0.0, 0.001))
    assert np.array_equal(free.score, dear.score)
    assert (free.net > 0).all() and (dear.net < 0).all()
    tie = close(table(cube, [[[0.7], [0.3]]], [0]), cube, OutcomeTerms(float(free.gross[0, 0, 0]) / 2))
    assert np.array_equal(free.score, tie.score) and np.abs(tie.net).max() < 1e-15


def test_no_opinion_takes_no_position_and_pays_nothing() -> None:
    cube = daily([[10, 10], [8, 10], [8, 10]])
    out = close(table(cube, [[[0.5], [0.5]]], [0]), cube, OutcomeTerms(0.01))
    for name in ("gross", "cost", "net", "drawdown", "barrier"):
        values = getattr(out, name)
        assert (values == 0).all() and not np.signbit(values).any(), name
    assert np.isnan(out.hit).all() and (out.score == 0).all()  # even chances are usual where nothing has closed


def test_a_symbol_that_dies_on_the_way_is_judged_with_what_was_left() -> None:
    gone = np.zeros((4, 2), bool)
    gone[2:, 0] = True
    cube = daily([[10, 10], [10, 10], [NAN, 10], [NAN, 10]], delisted=gone)
    assert np.allclose(Yardstick.of(cube, 3, OutcomeTerms(0.0)).residual[0], [-0.15, 0.15])


def test_what_has_not_closed_is_open_and_says_so() -> None:
    cube = desk_cube(0)
    said = [o for o in ask(cube) if isinstance(o, Opinion)]
    out = close(dense(cube), cube, OutcomeTerms(0.0))
    assert np.isnan(out.score[out.closed_row > 299]).all() and np.isnat(out.closed_at[out.closed_row > 299]).all()
    assert np.isfinite(out.score[(out.closed_row <= 299) & (out.opened_row > 50)]).any()
    closed, still_open = (next(o for o in said if o.as_of == cube.known_at[row]) for row in (290, 295))
    outcome = out.of(closed)
    assert outcome.closed_at == cube.known_at[295] and outcome.opinion_id == opinion_id(closed)
    assert outcome.net == outcome.gross - outcome.cost
    with pytest.raises(MissingDataError, match="open"):
        out.of(still_open)


def test_who_always_says_what_is_usual_scores_nothing() -> None:
    cube = desk_cube(1)
    rows = np.arange(0, 290, 5)
    neutral = close(table(cube, np.full((len(rows), 4, 1), 0.5), rows, 5), cube, OutcomeTerms(0.0))
    said = close(table(cube, neutral.climatology[..., None], rows, 5), cube, OutcomeTerms(0.0))
    assert np.allclose(said.score[np.isfinite(said.score)], 0.0)
    assert np.isnan(neutral.hit).all()


def test_noise_after_t_changes_nothing_that_had_closed_by_t() -> None:
    def closed_scores(cube):
        out = close(dense(cube), cube, OutcomeTerms(0.0))
        by_row = np.full((len(cube.times), *out.score.shape[1:]), NAN)
        inside = out.closed_row < len(cube.times)
        by_row[out.closed_row[inside]] = out.score[inside]
        return by_row

    cube = desk_cube(2)
    assert_apply(closed_scores, cube, 150, np.random.default_rng(0))


def test_the_law_catches_outcomes_laid_at_their_opening() -> None:
    def too_early(cube):
        out = close(dense(cube), cube, OutcomeTerms(0.0))
        by_row = np.full((len(cube.times), *out.score.shape[1:]), NAN)
        by_row[out.opened_row] = out.score
        return by_row

    with pytest.raises(AssertionError):
        assert_apply(too_early, desk_cube(2), 150, np.random.default_rng(0))


def test_what_had_closed_by_a_row_is_what_closes_on_the_cube_as_it_stood() -> None:
    cube = desk_cube(3)
    whole, then = close(dense(cube), cube, OutcomeTerms(0.0)), close(dense(cube.head(201)), cube.head(201), OutcomeTerms(0.0))
    closed = then.closed_row <= 200
    assert np.array_equal(whole.score[: len(closed)][closed], then.score[closed], equal_nan=True) and np.isnan(then.score[~closed]).all()
    assert np.array_equal(whole.climatology[: len(closed)], then.climatology)


def test_opinions_from_another_market_are_refused() -> None:
    cube = desk_cube(4)
    between = OpinionTable(cube.known_at[:1] + np.timedelta64(1, "h"), cube.symbols, ("a",), np.full((1, 4, 1), 0.6), 5)
    with pytest.raises(DataError, match="between two decision moments"):
        close(between, cube, OutcomeTerms(0.0))
    with pytest.raises(DataError, match="symbols"):
        close(OpinionTable(cube.known_at[:1], ("X",), ("a",), np.full((1, 1, 1), 0.6), 5), cube, OutcomeTerms(0.0))
    with pytest.raises(DataError, match="p_up is 1 in 1 opinions"):
        close(table(cube, np.where(np.arange(4) == 2, 1.0, 0.6)[None, :, None], [0]), cube, OutcomeTerms(0.0))


# --- a market whose chances are known -----------------------------------------------------------------------------


SPELLS = 1500
CHANCES = np.array([0.74, 0.5])  # that A beats B over a spell, in one half of the spells and in the other: 0.62 is usual


def two_random_walks(horizon: int):
    """Two names whose logs are normal walks, A's with a drift that holds for a spell; openings, and the chance of each."""
    rng = np.random.default_rng(horizon)
    chance = CHANCES[rng.integers(0, 2, SPELLS)]
    deviation = 0.01 / np.sqrt(horizon)
    drift = np.array([NormalDist().inv_cdf(p) for p in chance]) * deviation * np.sqrt(2 / horizon)
    steps = deviation * rng.standard_normal((SPELLS * horizon, 2))
    steps[:, 0] += np.repeat(drift, horizon)
    cube = daily(100 * np.exp(np.cumsum(np.vstack([np.zeros((1, 2)), steps]), axis=0)))
    return cube, horizon * np.arange(100, SPELLS), chance[100:]  # the bars after row h x n are spell n's


@pytest.mark.parametrize("horizon", [1, 5, 20, 60])
def test_at_every_horizon_the_true_belief_beats_boasting_buying_and_saying_nothing(horizon: int) -> None:
    cube, rows, chance = two_random_walks(horizon)
    true = np.stack([chance, 1 - chance], axis=1)
    sure = np.where(true == 0.5, [0.97, 0.03], np.where(true > 0.5, 0.97, 0.03))
    beliefs = {"true": true, "sure": sure, "buys": np.full_like(true, 0.9), "neutral": np.full_like(true, 0.5), "inverts": 1 - true}
    out = close(table(cube, np.stack(list(beliefs.values()), -1), rows, horizon, tuple(beliefs)), cube, WALKS)
    score = dict(zip(beliefs, out.score.mean(axis=(0, 1)), strict=True))
    assert score["true"] > 0.005 and all(score[name] < -0.005 for name in beliefs if name != "true")
    gross = dict(zip(beliefs, out.gross.mean(axis=(0, 1)), strict=True))
    assert gross["true"] > 0 > gross["inverts"] and gross["neutral"] == 0
    assert abs(gross["buys"]) < 1e-5  # who buys both names gains nothing of a residual


@pytest.mark.parametrize("horizon", [1, 20])
def test_the_true_quantiles_beat_narrow_wide_and_shifted_ones(horizon: int) -> None:
    cube, rows, chance = two_random_walks(horizon)
    levels = (0.1, 0.3, 0.5, 0.7, 0.9)
    normal = np.array([NormalDist().inv_cdf(x) for x in levels])
    half = 0.01 / np.sqrt(2)  # deviation of the residual, half of the difference of both
    centre = half * np.array([NormalDist().inv_cdf(p) for p in chance])[:, None] * np.array([1.0, -1.0])
    ways = {"true": (1.0, 1.0), "narrow": (1.0, 0.2), "wide": (1.0, 3.0), "inverted": (-1.0, 1.0), "exaggerated": (4.0, 1.0)}
    quantiles = np.stack([c * centre[..., None] + w * half * normal for c, w in ways.values()], axis=2)
    p_up = np.full(quantiles.shape[:3], 0.6)
    said = OpinionTable(cube.known_at[rows], cube.symbols, tuple(ways), p_up, horizon, levels=levels, quantiles=quantiles)
    score = dict(zip(ways, close(said, cube, WALKS).score.mean(axis=(0, 1)), strict=True))
    assert score["true"] > 0.005 and all(score[name] < 0 for name in ways if name != "true")


def test_who_says_quantiles_is_judged_by_them_and_who_does_not_by_p_up() -> None:
    cube, levels = desk_cube(5), (0.1, 0.5, 0.9)
    rows = np.arange(100, 200, 5)
    plain = table(cube, np.full((len(rows), 4, 2), 0.55), rows, 5, ("a", "b"))
    quantiles = np.full((len(rows), 4, 2, 3), NAN)
    quantiles[:, :, 1] = [-0.05, 0.01, 0.06]
    mixed = replace(plain, levels=levels, quantiles=quantiles)
    before, after = (close(said, cube, OutcomeTerms(0.001)) for said in (plain, mixed))
    assert np.array_equal(before.score[:, :, 0], after.score[:, :, 0], equal_nan=True)
    assert (before.score[:, :, 1] != after.score[:, :, 1]).all() and np.array_equal(before.net, after.net, equal_nan=True)
    usual = Yardstick.of(cube, 5, OutcomeTerms(0.001)).usual(levels)[0][rows]
    said_usual = replace(mixed, quantiles=np.broadcast_to(usual[:, :, None], quantiles.shape))
    score = close(said_usual, cube, OutcomeTerms(0.001)).score[:, :, 1]
    assert (score[np.isfinite(score)] == 0).all() and np.isfinite(score).mean() > 0.8


# --- opinions in long form ----------------------------------------------------------------------------------------

QUANTILES = ((0.1, -0.06), (0.5, 0.01), (0.9, 0.07))


def some_opinions(cube, seed: int) -> list[Opinion | Abstention]:
    """The desk's, the same in second rounds and samples, over other horizons, some with quantiles, in no order."""
    rng = np.random.default_rng(seed)
    said = ask(cube)
    first = [o for o in said if isinstance(o, Opinion)]
    more = [replace(o, round=1, p_up=float(rng.uniform(0.3, 0.7))) for o in first[::2]]
    more += [replace(o, sample=2, p_up=float(rng.uniform(0.3, 0.7)), quantiles=QUANTILES) for o in first[::3]]
    more += [replace(o, horizon_bars=20, quantiles=QUANTILES[1:]) for o in first[::2]]
    more += [replace(o, horizon_bars=60, p_up=0.5) for o in first]
    both = [*said, *more]
    return [both[i] for i in rng.permutation(len(both))]


def yardsticks(cube, terms=None) -> dict[int, Yardstick]:
    return {h: Yardstick.of(cube, h, terms or OutcomeTerms(0.0007)) for h in (5, 20, 60)}


def test_in_a_stream_opinions_fare_as_they_do_in_a_table_bit_for_bit() -> None:
    cube, terms = desk_cube(6), OutcomeTerms(0.0007, sectors={"S00": "x", "S01": "x"})
    said = some_opinions(cube, 0)
    outcomes = judge_records(to_arrow(said), cube.known_at, cube.symbols, yardsticks(cube, terms))
    assert outcomes.schema == OUTCOME_SCHEMA
    rows = {row["opinion_id"]: row for row in outcomes.to_pylist()}
    assert len(rows) == len(outcomes)
    tables = {}
    for h, levels in ((5, 3), (20, 2), (60, 0)):
        mine = [o for o in said if o.horizon_bars == h]
        voices = tuple(sorted({o.voice.name for o in mine if isinstance(o, Opinion)}))
        tables[h] = close(OpinionTable.of(mine, cube.symbols, voices), cube, terms)
        assert sum(len(o.quantiles) == levels for o in mine if isinstance(o, Opinion)) > 50
    still_open = 0
    for o in said:
        if isinstance(o, Abstention):
            continue
        try:
            outcome = tables[o.horizon_bars].of(o)
        except MissingDataError:
            still_open += 1
            assert opinion_id(o) not in rows
            continue
        row = rows.pop(opinion_id(o))
        assert all(getattr(outcome, name) == row[name] for name in ("author", "symbol", "horizon_bars", "void"))
        assert (outcome.opened_at, outcome.closed_at) == (np.datetime64(row["opened_at"]), np.datetime64(row["closed_at"]))
        for name in FIGURES:
            one, other = getattr(outcome, name), row[name]
            assert one == other or (np.isnan(one) and other is None), (name, one, other)
    assert not rows and still_open > 20


def test_what_a_record_says_wrong_is_void_with_its_reason_and_the_others_are_judged() -> None:
    gone = np.zeros((300, 4), bool)
    gone[152:, 0] = True
    cube = replace(desk_cube(7), delisted=gone)
    cube.prices[gone] = NAN
    cube.prices[150, 1] = NAN
    right = Opinion("a", cube.known_at[150], "S02", 5, 0.6, (), "", "h")
    said = [
        right, replace(right, symbol="S00"), replace(right, symbol="S01"), replace(right, symbol="GONE"),
        replace(right, as_of=cube.known_at[150] + np.timedelta64(1, "h")), replace(right, as_of=cube.known_at[0], quantiles=QUANTILES),
        right, right, right, replace(right, as_of=cube.known_at[296]), replace(right, as_of=cube.known_at[299] + np.timedelta64(9, "D")),
    ]  # fmt: skip
    records = to_arrow([*said, Abstention("a", cube.known_at[150], "S02", 5, "no data")])
    p_up, quantiles = records["p_up"].to_pylist(), records["quantiles"].to_pylist()
    p_up[6], p_up[7], quantiles[8] = NAN, 1.0, json.dumps([[0.5, 0.1], [0.9, 0.0]])
    for name, column in (("p_up", p_up), ("quantiles", quantiles)):
        at = records.schema.get_field_index(name)
        records = records.set_column(at, records.schema.field(at), pa.array(column, records.schema.field(at).type))
    rows = judge_records(records, cube.known_at, cube.symbols, yardsticks(cube)).to_pylist()
    assert [row["void"] for row in rows] == ["", "", VOID[2], VOID[4], VOID[7], VOID[6], VOID[5], VOID[5], VOID[5]]
    for row in rows:
        there = [row[name] is not None for name in FIGURES]
        assert all(there) if row["void"] == "" else not any(there)
        assert row["closed_at"] is not None
    assert rows[1]["gross"] < -0.2  # the delisted one: what the simulator leaves of it


def test_an_outcome_that_can_never_be_judged_says_why() -> None:
    cube = desk_cube(7)
    cube.prices[150, 1] = NAN
    opinion = Opinion("a", cube.known_at[150], "S01", 5, 0.6, (), "", "h")
    early = Opinion("a", cube.known_at[0], "S02", 5, 0.6, (), "", "h", quantiles=QUANTILES)
    out = close(OpinionTable.of([opinion, early], cube.symbols, ("a",)), cube, OutcomeTerms(0.0))
    assert out.of(opinion).void == VOID[2] and np.isnan(out.of(opinion).score) and out.of(opinion).closed_at == cube.known_at[155]
    assert out.of(early).void == VOID[6] and np.isnan(out.of(early).net)
    with pytest.raises(MissingDataError, match="abstention"):
        out.of(replace(opinion, symbol="S02"))
    with pytest.raises(MissingDataError, match="not in this table"):
        out.of(replace(opinion, sample=1))


def test_order_and_repetition_of_records_change_nothing() -> None:
    cube = desk_cube(8)
    records = to_arrow(some_opinions(cube, 1))
    by = yardsticks(cube)
    once = judge_records(records, cube.known_at, cube.symbols, by).to_pylist()
    turned = judge_records(pa.concat_tables([records, records]).take(np.arange(2 * len(records))[::-1]), cube.known_at, cube.symbols, by)
    assert turned.to_pylist() == [row for row in reversed(once)] * 2
    parts = [judge_records(records.slice(at, 100), cube.known_at, cube.symbols, by) for at in range(0, len(records), 100)]
    assert pa.concat_tables(parts).to_pylist() == once


def test_no_records_and_bars_too_few_for_the_horizon_make_no_outcomes() -> None:
    cube = desk_cube(8, rows=25, names=())
    by = {h: Yardstick.of(cube, h, OutcomeTerms(0.0)) for h in (5, 60)}
    empty = judge_records(to_arrow([]), cube.known_at, cube.symbols, by)
    assert empty.num_rows == 0 and empty.schema == OUTCOME_SCHEMA
    early = to_arrow([Opinion("a", cube.known_at[3], "S01", 60, 0.6, (), "", "h")])
    assert judge_records(early, cube.known_at, cube.symbols, by).num_rows == 0
    assert set(np.unique(by[60].void)) <= {1, 2} and np.isnan(by[60].usual((0.5,))[0]).all()


def test_an_opinion_has_one_name_everywhere() -> None:
    opinion = Opinion("technical", np.datetime64("2020-01-02T21:00", "us"), "A", 5, 0.6, (), "", "0123456789abcdef")
    others = [
        replace(opinion, author="x"), replace(opinion, symbol="B"), replace(opinion, horizon_bars=20), replace(opinion, round=1),
        replace(opinion, sample=1), replace(opinion, prompt_hash="0"), replace(opinion, as_of=np.datetime64("2020-01-02T21:01", "us")),
    ]  # fmt: skip
    names = opinion_ids(to_arrow([opinion, *others])).to_pylist()
    assert names == [opinion_id(o) for o in (opinion, *others)] and len(set(names)) == 8
    assert names[0] == "c45dd98a5875049f"  # of 1577998800000000, A, technical, 0, 0, 5 and the prompt's hash


def test_records_and_yardsticks_that_do_not_fit_are_refused() -> None:
    cube = desk_cube(9)
    records, by = to_arrow([Opinion("a", cube.known_at[100], "S01", 7, 0.6, (), "", "h")]), yardsticks(cube)
    with pytest.raises(DataError, match=r"opinions over \[7\] bars and yardsticks for \[5, 20, 60\]"):
        judge_records(records, cube.known_at, cube.symbols, by)
    with pytest.raises(DataError, match="a yardstick of 5 bars"):
        judge_records(records, cube.known_at[:-1], cube.symbols, by)
    with pytest.raises(SchemaError, match=r"without \['quantiles'\]"):
        judge_records(records.drop_columns("quantiles"), cube.known_at, cube.symbols, by)


def test_outcomes_in_long_form_make_the_table_that_close_makes() -> None:
    """Where somebody spoke and it has closed; elsewhere nothing is known of them."""
    cube = desk_cube(3)
    said = ask(cube)
    opinions, spoken = dense(cube), to_arrow(said)
    by = {5: Yardstick.of(cube, 5, OutcomeTerms(0.001))}
    outcomes = judge_records(spoken, cube.known_at, cube.symbols, by)
    mixed = outcomes.take(np.random.default_rng(0).permutation(len(outcomes)))  # whatever order they come in
    one, bulk = close(opinions, cube, OutcomeTerms(0.001)), tabled(mixed, spoken, opinions, cube.known_at)
    spoke = np.isfinite(opinions.p_up).any(axis=-1)
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(bulk, field.name)
        if field.name in ("residual", "climatology"):
            there = spoke & np.isfinite(one.residual)
            assert np.array_equal(a[there], b[there]) and np.isnan(b[~spoke]).all()
        elif field.name == "void":
            assert np.array_equal(a[spoke], b[spoke])
        elif isinstance(a, np.ndarray):
            assert np.array_equal(a, b, equal_nan=a.dtype.kind in "fM"), field.name
        else:
            assert a == b, field.name
