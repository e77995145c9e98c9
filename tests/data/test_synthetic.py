import datetime as dt
import pickle

import numpy as np
import polars as pl
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from rlaif_ray.backtest.engine import run
from rlaif_ray.core import Panel
from rlaif_ray.data.clean import clean
from rlaif_ray.data.synthetic import INFORMATION_COEFFICIENT, LATE_BARS, SyntheticSource, Truth
from rlaif_ray.errors import DataError, MissingDataError
from tests.oracle import TERMS, OraclePolicy, market_cube

PRICES = ("open", "high", "low", "close")


@pytest.fixture(scope="module")
def source() -> SyntheticSource:
    return SyntheticSource(30, 5000)


@pytest.fixture(scope="module")
def tables(source: SyntheticSource) -> dict[str, dict[str, pl.DataFrame]]:
    return {s: source.read(s) for s in source.symbols()}


@pytest.fixture(scope="module")
def truths(source: SyntheticSource) -> list[Truth]:
    return [source.truth(s) for s in source.symbols()]


def whole_moves(bars: pl.DataFrame) -> np.ndarray:
    """Close to close, but for the product of the two parts."""
    gap, day = moves(bars)
    return gap + day


def moves(bars: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Simple total returns of each bar but the first: close to open, and open to close."""
    open_, close, dividend, split = (bars.filter(~pl.col("delisted"))[c].to_numpy() for c in ("open", "close", "dividend", "split"))
    return split[1:] * (open_[1:] + dividend[1:]) / close[:-1] - 1, close[1:] / open_[1:] - 1


def net_sharpe(seed: int) -> float:
    source = SyntheticSource(30, 5000, seed=seed)
    cube = market_cube(source)
    episode, _ = run(OraclePolicy(source.oracle()), cube, slice(0, 4999), TERMS)
    return float(episode.returns.mean() / episode.returns.std() * np.sqrt(cube.bars_per_year))


# --- moments -------------------------------------------------------------------------------------------------------


def test_scores_have_zero_mean_and_unit_variance(truths: list[Truth]) -> None:
    scores = np.concatenate([t.scores for t in truths])
    assert np.abs(scores.mean(axis=0)).max() < 0.06  # 30 x 5,000 rows, each alike for up to 20 bars
    np.testing.assert_allclose(scores.std(axis=0), 1.0, atol=0.05)
    assert np.abs(np.corrcoef(scores.T) - np.eye(4)).max() < 0.03


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_planted_part_has_the_stated_information_coefficient(strength: float) -> None:
    source = SyntheticSource(30, 5000, seed=1, signal_strength=strength)
    residual, planted = [], []
    for truth in (source.truth(s) for s in source.symbols()):
        planted.append(truth.planted[:-1] / truth.sigma[:-1])
        residual.append(planted[-1] + truth.residual[1:])
    x, y = np.concatenate(planted), np.concatenate(residual)
    assert x.std() == pytest.approx(strength * INFORMATION_COEFFICIENT, rel=0.05)
    if strength:
        assert np.corrcoef(x, y)[0, 1] == pytest.approx(x.std(), abs=3 / np.sqrt(len(x)))


def test_oracle_is_the_conditional_mean_of_open_to_close_and_says_nothing_of_the_gap(
    source: SyntheticSource, tables: dict[str, dict[str, pl.DataFrame]], truths: list[Truth]
) -> None:
    oracle = source.oracle()
    gaps, days, expected, sigma = [], [], [], []
    for i, symbol in enumerate(source.symbols()):
        gap, day = moves(tables[symbol]["bars"])
        known = oracle[: len(day), i]
        gaps.append(gap[known != 0])
        days.append(day[known != 0])
        expected.append(known[known != 0])
        sigma.append(truths[i].sigma[: len(day)][known != 0])
    gap, day, x, scale = map(np.concatenate, (gaps, days, expected, sigma))
    weight = 1 / scale**2  # all bars count alike
    slope = (weight * x * day).sum() / (weight * x * x).sum()
    error = 1.4 / np.sqrt((weight * x * x).sum())  # residual and factor together: about 1.3 sigma
    assert slope == pytest.approx(1.0, abs=3 * error)
    assert (weight * x * gap).sum() / (weight * x * x).sum() == pytest.approx(0.0, abs=3 * error)
    assert 3 * error < 0.12


def test_every_score_predicts_and_turbulence_turns_the_reversal_round(
    source: SyntheticSource, tables: dict[str, dict[str, pl.DataFrame]], truths: list[Truth]
) -> None:
    rows, moved = {False: [], True: []}, {False: [], True: []}
    for symbol, truth in zip(source.symbols(), truths, strict=True):
        _, day = moves(tables[symbol]["bars"])
        for turbulent in (False, True):
            at = truth.turbulent[:-1] == turbulent
            rows[turbulent].append(truth.scores[:-1][at])
            moved[turbulent].append((day / truth.sigma[:-1])[at])
    for turbulent, signs in ((False, [1, 1, 1, 1]), (True, [-1, 1, 1, 1])):
        x, y = np.concatenate(rows[turbulent]), np.concatenate(moved[turbulent])
        slopes = np.linalg.lstsq(x, y, rcond=None)[0]
        np.testing.assert_allclose(slopes, INFORMATION_COEFFICIENT / 2 * np.array(signs), atol=4 * 1.2 / np.sqrt(len(y)))


def test_no_drift_unless_set_and_no_sample_mean_taken_out() -> None:
    """Over many markets the mean return is 0 within its error; within one the mean is left to chance.

    Taking a sample mean out would make each path a bridge: the second half would undo the first.
    """
    quiet, pushed, halves = [], [], []
    for seed in range(40):
        for drift, out in ((0.0, quiet), (1e-3, pushed)):
            bars = SyntheticSource(2, 1000, seed=seed, signal_strength=0.0, drift=drift).read("S000")["bars"]
            returns = whole_moves(bars)
            out.append(returns.mean())
            if not drift:
                halves.append([returns[:500].mean(), returns[500:].mean()])
    error = np.std(quiet) / np.sqrt(len(quiet))
    assert abs(np.mean(quiet)) < 3 * error
    assert np.std(quiet) > 3e-4  # about 2% / sqrt(1,000)
    assert np.mean(pushed) - np.mean(quiet) == pytest.approx(1e-3, rel=0.05)
    assert abs(np.corrcoef(np.array(halves).T)[0, 1]) < 3 / np.sqrt(len(halves))  # a bridge would give -1


def test_residuals_have_the_tails_of_student_t_with_5_degrees(truths: list[Truth]) -> None:
    residual = np.concatenate([t.residual for t in truths])
    assert residual.std() == pytest.approx(1.0, abs=0.02)
    # P(|t5| > 4 * sqrt(5/3)) = 0.0036 (twice the upper tail at 5.164); a normal has 0.00006 beyond 4
    assert (np.abs(residual) > 4).mean() == pytest.approx(0.0036, abs=0.0006)
    assert abs((residual > 4).sum() - (residual < -4).sum()) < 4 * np.sqrt((np.abs(residual) > 4).sum())


def test_volatility_has_two_states_that_last(truths: list[Truth]) -> None:
    turbulent = truths[0].turbulent
    assert np.array_equal(turbulent, truths[1].turbulent)
    assert len(np.unique(truths[0].sigma)) == 2
    assert truths[0].sigma[turbulent].min() == pytest.approx(2 * truths[0].sigma[~turbulent].min())
    assert 10 < np.abs(np.diff(turbulent.astype(int))).sum() < 100  # stays of 200 and 100 bars in 5,000: about 33 changes
    assert 0.1 < turbulent.mean() < 0.6


def test_market_loads_are_as_drawn(source: SyntheticSource, tables: dict[str, dict[str, pl.DataFrame]], truths: list[Truth]) -> None:
    """Regressed on the mean of the others, a symbol's return has its own beta over theirs."""
    whole = [s for s in source.symbols() if s != "S029"]
    returns = np.array([whole_moves(tables[s]["bars"]) for s in whole])
    betas = np.array([t.beta for t in truths[:29]])
    market = returns.mean(axis=0)
    seen = np.array([np.cov(r, market)[0, 1] for r in returns]) / market.var()
    assert np.corrcoef(seen, betas)[0, 1] > 0.9


def test_price_and_volume_show_the_scores_that_hide_in_them(
    source: SyntheticSource, tables: dict[str, dict[str, pl.DataFrame]], truths: list[Truth]
) -> None:
    reversal, volume = [], []
    market = np.mean([whole_moves(tables[s]["bars"]) for s in source.symbols()[:29]], axis=0)
    for symbol, truth in zip(source.symbols()[:29], truths, strict=False):
        bars = tables[symbol]["bars"]
        apart = np.concatenate([[0.0], whole_moves(bars) - market])
        week = np.convolve(apart, np.ones(5))[: len(apart)]
        reversal.append(np.corrcoef(-week / truth.sigma, truth.scores[:, 0])[0, 1])
        traded = bars["volume"].to_numpy() > 0
        log_volume = np.log(bars["volume"].to_numpy() / np.cumprod(bars["split"].to_numpy()), where=traded, out=np.zeros(len(traded)))
        volume.append(np.corrcoef(log_volume[traded], truth.scores[traded, 1])[0, 1])
    assert min(reversal) > 0.5
    assert min(volume) > 0.6


# --- what is known when --------------------------------------------------------------------------------------------


def test_facts_are_known_before_the_close_of_the_bar_in_which_their_score_begins(source: SyntheticSource) -> None:
    """The latest filing fades over 20 bars and the latest news over 5, counted from the first bar that knew them."""
    cube = market_cube(source)
    for kind, k, bars in (("filing", 2, 20.0), ("news", 3, 5.0)):
        score, age = (cube.feature(f"{kind}_{c}").astype(np.float64) for c in ("score", "age_bars"))
        faded = np.nan_to_num(score * np.exp(-age / bars))
        for i, symbol in enumerate(cube.symbols):
            hidden = source.truth(symbol).scores[:, k]
            seen = faded[: len(hidden), i]
            scale = (hidden @ seen) / (seen @ seen)
            np.testing.assert_allclose(scale * seen, hidden, atol=1e-4)


def test_one_filing_is_late_and_no_fact_is_known_before_it_happened(tables: dict[str, dict[str, pl.DataFrame]]) -> None:
    late = []
    for symbol, table in tables.items():
        for name in ("filings", "news"):
            delay = table[name]["known_at"] - table[name]["timestamp"]
            assert delay.dt.total_seconds().min() > 0  # type: ignore[operator]
            late += [symbol] * int((delay.dt.total_days() > 20).sum())
    assert late == ["S001"]
    assert LATE_BARS > 30


def test_bars_end_at_closes_of_the_new_york_exchange(tables: dict[str, dict[str, pl.DataFrame]]) -> None:
    bars = tables["S000"]["bars"]
    local = bars["timestamp"].dt.convert_time_zone("America/New_York")
    assert (local.dt.date() == bars["session"]).all()
    assert set(local.dt.hour().unique()) == {13, 16}  # 1 p.m. on half days, in summer and winter alike
    assert str(bars["session"][-1]) == "2024-12-31"
    assert (bars["known_at"] == bars["timestamp"]).all()


@pytest.mark.parametrize(("bar", "in_a_session"), [("15m", 26), ("1m", 390)])
def test_intraday_bars_fill_whole_sessions(bar: str, in_a_session: int) -> None:
    source = SyntheticSource(2, 20 * in_a_session, bar=bar)
    tables = source.read("S000")
    counts = tables["bars"].group_by("session").len()["len"].to_list()
    assert counts.count(in_a_session) >= 18 and max(counts) == in_a_session
    first = tables["bars"].filter(pl.col("session") == dt.date(2024, 12, 31))["timestamp"].dt.convert_time_zone("America/New_York")
    assert (first[0].hour, first[0].minute) == ((9, 45) if bar == "15m" else (9, 31))
    assert (first[-1].hour, first[-1].minute) == (16, 0)
    daily = SyntheticSource(2, 1000).truth("S000").sigma.min()
    assert source.truth("S000").sigma.min() == pytest.approx(daily / np.sqrt(in_a_session))
    gap, day = moves(tables["bars"])
    assert gap.std() < day.std()
    assert source.oracle().shape == (20 * in_a_session, 2)


# --- bars that hold together ---------------------------------------------------------------------------------------


def test_prices_hold_together(tables: dict[str, dict[str, pl.DataFrame]]) -> None:
    for table in tables.values():
        bars = table["bars"].filter(~pl.col("delisted"))
        o, h, low, c = (bars[name].to_numpy() for name in PRICES)
        assert (low > 0).all() and (low <= np.minimum(o, c)).all() and (np.maximum(o, c) <= h).all()
        assert np.isfinite(h).all() and (bars["volume"].to_numpy() >= 0).all()


def test_high_and_low_tell_the_volatility(tables: dict[str, dict[str, pl.DataFrame]]) -> None:
    """Parkinson (1980): the variance from open to close is the mean squared log range / (4 log 2)."""
    bars = tables["S002"]["bars"].filter("tradable")
    o, h, low, c = (np.log(bars[name].to_numpy()) for name in PRICES)
    assert ((h - low) ** 2).mean() / (4 * np.log(2)) == pytest.approx((c - o).var(), rel=0.25)


def test_halts_stand_still_and_catch_up_at_resumption(source: SyntheticSource, tables: dict[str, dict[str, pl.DataFrame]]) -> None:
    halted_rows, catch_up, usual = 0, [], []
    oracle = source.oracle()
    for i, table in enumerate(tables.values()):
        bars = table["bars"].filter(~pl.col("delisted"))
        halted = ~bars["tradable"].to_numpy()
        close = bars["close"].to_numpy()
        halted_rows += halted.sum()
        for t in np.flatnonzero(halted):
            assert bars["volume"][int(t)] == 0 and {bars[p][int(t)] for p in PRICES} == {close[t - 1]}
            assert oracle[t - 1, i] == 0 and bars["split"][int(t)] == 1 and bars["dividend"][int(t)] == 0
        gap, _ = moves(table["bars"])
        resumed = halted[:-1] & ~halted[1:]
        catch_up += [*gap[resumed]]
        usual += [*gap[~halted[:-1] & ~halted[1:]]]
    assert halted_rows > 100
    assert np.std(catch_up) > 1.5 * np.std(usual)  # whole hidden days against one night


def test_splits_dividends_and_one_delisting_are_there(tables: dict[str, dict[str, pl.DataFrame]]) -> None:
    bars = {s: t["bars"] for s, t in tables.items()}
    splits = [int((b["split"] != 1).sum()) for b in bars.values()]
    assert splits == [s if i % 3 == 0 else 0 for i, s in enumerate(splits)] and {s for s in splits[::3]} == {1, 2}
    paying = [int((b["dividend"] > 0).sum()) for b in bars.values()]
    assert paying[::2] == [0] * 15 and min(paying[1::2]) > 60  # quarterly over 17 years and more
    gone = [s for s, b in bars.items() if b["delisted"].any()]
    assert gone == ["S029"]
    last = bars["S029"].row(-1, named=True)
    assert bars["S029"].height == 4251 and last["delisted"] and not last["tradable"] and all(last[p] is None for p in PRICES)
    assert bars["S029"]["delisted"].sum() == 1


def test_a_split_divides_the_price_and_multiplies_volume(tables: dict[str, dict[str, pl.DataFrame]]) -> None:
    for table in tables.values():
        bars = table["bars"].filter(~pl.col("delisted"))
        for t in np.flatnonzero(bars["split"].to_numpy() != 1):
            ratio, t = bars["split"][int(t)], int(t)
            assert np.log(bars["open"][t] * ratio / bars["close"][t - 1]) == pytest.approx(0, abs=0.25)
            before, after = (bars["volume"].to_numpy()[s] for s in (slice(t - 40, t), slice(t, t + 40)))
            assert np.log(np.median(after) / np.median(before) / ratio) == pytest.approx(0, abs=0.8)


def test_tables_pass_the_doors_that_all_data_passes(tables: dict[str, dict[str, pl.DataFrame]]) -> None:
    for symbol in ("S000", "S001", "S029"):
        for frame in tables[symbol].values():
            assert Panel.of(frame).frame.height == frame.height
        cleaned, _ = clean(tables[symbol]["bars"], calendar="XNYS")
        assert cleaned.select(*PRICES, "tradable").equals(tables[symbol]["bars"].select(*PRICES, "tradable"))


# --- the same market, however it is read ---------------------------------------------------------------------------


def test_any_order_of_reading_gives_the_same_tables() -> None:
    a, b = SyntheticSource(4, 600, seed=3), pickle.loads(pickle.dumps(SyntheticSource(4, 600, seed=3)))
    forth = {s: a.read(s) for s in a.symbols()}
    back = {s: b.read(s) for s in reversed(b.symbols())}
    for symbol, table in forth.items():
        for name, frame in table.items():
            assert frame.equals(back[symbol][name]), (symbol, name)
    other = SyntheticSource(4, 600, seed=4).read("S000")["bars"]
    assert not other["close"].equals(forth["S000"]["bars"]["close"])


def test_a_symbol_is_the_same_in_a_market_of_any_size_and_strength_changes_only_what_is_planted() -> None:
    small, large = SyntheticSource(3, 600), SyntheticSource(1100, 600)
    assert small.read("S001")["bars"].drop("symbol").equals(large.read("S0001")["bars"].drop("symbol"))
    assert large.symbols() == sorted(large.symbols())
    quiet, loud = (SyntheticSource(3, 600, signal_strength=s).truth("S001") for s in (0.0, 1.0))
    assert np.array_equal(quiet.scores, loud.scores) and np.array_equal(quiet.residual, loud.residual)
    assert not quiet.planted.any() and loud.planted.all()


def test_the_oracle_is_silent_once_a_symbol_is_gone() -> None:
    oracle = SyntheticSource(3, 1000).oracle()
    assert np.isfinite(oracle[:, :2]).all()
    assert np.isnan(oracle[850:, 2]).all() and np.isfinite(oracle[:850, 2]).all() and oracle[849, 2] == 0


def test_impossible_markets_are_refused() -> None:
    with pytest.raises(DataError, match="'15min'; expected one of 1d, 15m, 1m"):
        SyntheticSource(2, 300, bar="15min")
    with pytest.raises(DataError, match="at least 2, 300 and 0"):
        SyntheticSource(1, 300)
    with pytest.raises(MissingDataError, match="no synthetic symbol 'S002'"):
        SyntheticSource(2, 300).read("S002")
    with pytest.raises(DataError, match="at most 300"):
        SyntheticSource(2, 80_000).read("S000")
    with pytest.raises(DataError, match=r"lower --data\.signal_strength or --data\.drift"):
        SyntheticSource(2, 300, drift=-1.5).read("S000")


# --- text ----------------------------------------------------------------------------------------------------------

GOOD = {"profit", "rose", "hoped", "lead", "beat", "beats", "strong", "upgrade", "gains", "won"}
BAD = {"debt", "fell", "feared", "loss", "miss", "not", "weak", "downgrade", "loses", "lost", "cuts", "withdrawn", "less", "lowest"}


def test_tone_is_not_a_count_of_words(tables: dict[str, dict[str, pl.DataFrame]]) -> None:
    """A keyword counter and a trained bag of words do no better than chance, yet the order of the words tells all."""
    news = pl.concat([t["news"] for t in tables.values()])
    text = news["text"].str.replace_all(r"S\d+", "").str.to_lowercase().to_list()
    tone = np.sign(news["news_score"].to_numpy())
    counts = np.array([sum((w in GOOD) - (w in BAD) for w in line.replace(",", "").replace(":", "").split()) for line in text])
    said = counts != 0
    assert said.mean() > 0.3
    assert (np.sign(counts[said]) == tone[said]).mean() == pytest.approx(0.5, abs=0.03)
    half = len(text) // 2
    accuracy = {}
    for words in (1, 6):
        bag = CountVectorizer(ngram_range=(1, words), token_pattern=r"\w+")
        fitted = LogisticRegression(C=0.1, max_iter=200).fit(bag.fit_transform(text[:half]), tone[:half])
        accuracy[words] = fitted.score(bag.transform(text[half:]), tone[half:])
    assert accuracy[1] == pytest.approx(0.5, abs=0.03)
    assert accuracy[6] > 0.95


# --- strength ------------------------------------------------------------------------------------------------------


def test_no_signal_no_prediction() -> None:
    """At s = 0 none of the scores foretells a return: t values of 5 markets x 4 scores look like chance."""
    t_values = []
    for seed in range(5):
        source = SyntheticSource(10, 1000, seed=seed, signal_strength=0.0)
        x, y = [], []
        for symbol in source.symbols():
            truth = source.truth(symbol)
            x.append(truth.scores[:-1])
            y.append(moves(source.read(symbol)["bars"])[1] / truth.sigma[:-1])
        scores, moved = np.concatenate(x), np.concatenate(y)
        t_values += [np.corrcoef(z, moved)[0, 1] * np.sqrt(len(moved)) for z in scores.T]
        assert not np.nan_to_num(source.oracle()).any()
    assert np.abs(t_values).max() < 4 and np.square(t_values).mean() < 2.5


def test_oracle_decides_the_same_in_bulk_and_one_by_one() -> None:
    source = SyntheticSource(4, 400)
    cube, policy = market_cube(source), OraclePolicy(source.oracle())

    class OneByOne:
        name, decide = policy.name, policy.decide

    episodes = [
        run(p, cube, slice(100, 200), TERMS)[0] for p in (policy, OneByOne())
    ]  # fmt: skip
    np.testing.assert_allclose(episodes[0].returns, episodes[1].returns, atol=1e-12)


def test_oracle_earns_a_net_sharpe_of_three() -> None:
    """The dial: mean of 10 seeds, long-only, research costs, 30 symbols x 5,000 daily bars."""
    assert np.mean([net_sharpe(seed) for seed in range(10)]) == pytest.approx(3.0, abs=0.3)
