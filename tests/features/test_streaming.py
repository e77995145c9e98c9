"""The streaming form says what the whole history says, bit for bit: listings, halts, splits, delistings and all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rlaif_ray.core import PRICE_COLUMNS, UTC, Panel
from rlaif_ray.errors import ConfigError, DataError, MissingDataError
from rlaif_ray.features.core_31 import COLUMNS, CORE_31
from rlaif_ray.features.family import FeatureSpec
from rlaif_ray.features.streaming import CoreStream
from rlaif_ray.features.technical import TECHNICAL
from tests.laws import random_bars

ROWS = 260


def market(assets: int = 6) -> Panel:
    """Symbols that list on bars 0, 7, 14 ..., halt now and then (some with a split meanwhile), pay, split, and may be delisted."""
    rng = np.random.default_rng(2)
    frame = random_bars(rng, ROWS, assets).frame
    row, number = pl.int_range(pl.len()).over("symbol"), pl.col("symbol").rank("dense")
    halted = pl.Series(rng.random(frame.height) < 0.03) | (row < 7 * (number - 1))
    frame = frame.with_columns(pl.when(halted).then(None).otherwise(pl.col(c)).alias(c) for c in PRICE_COLUMNS)
    partly = pl.Series(rng.random(frame.height) < 0.02)  # a bar with a close alone
    frame = frame.with_columns(pl.when(partly).then(None).otherwise(pl.col(c)).alias(c) for c in ("open", "high", "volume"))
    assert frame["delisted"].any() and (frame["split"] != 1).any() and frame["close"].null_count() > 40
    return Panel.of(frame)


def recomputed(panel: Panel, columns: Sequence[FeatureSpec] = COLUMNS) -> dict[str, np.ndarray]:
    """Symbol -> (T,F), of the whole history at once."""
    names = [spec.name for spec in columns]
    made = {}
    for part in panel.frame.partition_by("symbol", maintain_order=True):
        frame = CORE_31.apply({"bars": part}, columns).frame
        made[part["symbol"][0]] = frame.with_columns(pl.lit(np.nan, pl.Float32).alias(n) for n in names if n not in frame.columns)[names]
    return {symbol: frame.to_numpy() for symbol, frame in made.items()}


def pushed(stream: CoreStream, panel: Panel, rows: range) -> np.ndarray:
    """(len(rows),N,F): bars `rows` of each symbol, one after another; a symbol whose bars have ended has none."""
    parts = {part["symbol"][0]: part for part in panel.frame.partition_by("symbol", maintain_order=True)}
    said = []
    for t in rows:
        n = len(stream.symbols)
        prices, times = np.full((n, 5), np.nan), np.full(n, np.datetime64("NaT"), "M8[us]")
        split, dividend, delisted = np.ones(n), np.zeros(n), np.zeros(n, bool)
        for i, symbol in enumerate(stream.symbols):
            if t < parts[symbol].height:
                bar = parts[symbol].row(t, named=True)
                prices[i] = [np.nan if bar[c] is None else bar[c] for c in PRICE_COLUMNS]
                times[i] = bar["timestamp"].replace(tzinfo=None)
                split[i], dividend[i], delisted[i] = bar["split"], bar["dividend"], bar.get("delisted", False)
        said.append(stream.push(prices, times, split, dividend, delisted))
    return np.stack(said)


def assert_same_bits(said: np.ndarray, whole: dict[str, np.ndarray], symbols: Sequence[str], rows: range) -> None:
    assert said.dtype == np.float32 and np.isfinite(said).any()
    for i, symbol in enumerate(symbols):
        expected = np.full((len(rows), said.shape[2]), np.nan, np.float32)
        known = whole[symbol][rows.start : rows.stop]
        expected[: len(known)] = known
        same = (said[:, i].view(np.uint32) == expected.view(np.uint32)) | (np.isnan(said[:, i]) & np.isnan(expected))
        assert same.all(), f"{symbol}: {(~same).sum()} values differ, first at {np.argwhere(~same)[0].tolist()}"


def first_bars(panel: Panel, rows: int) -> Panel:
    return Panel(panel.frame.filter(pl.int_range(pl.len()).over("symbol") < rows))


@pytest.mark.parametrize("cut", [1, 3, 50, 51, 103, 200])
def test_pushed_bars_say_what_the_whole_history_says(cut: int) -> None:
    panel = market()
    stream = CoreStream.warm(first_bars(panel, cut))
    rows = range(cut, ROWS)
    assert_same_bits(pushed(stream, panel, rows), recomputed(panel), panel.symbols, rows)


def test_a_stream_may_start_from_nothing() -> None:
    panel = market()
    assert_same_bits(pushed(CoreStream.empty(panel.symbols), panel, range(ROWS)), recomputed(panel), panel.symbols, range(ROWS))


def test_other_parameters_have_a_stream_too() -> None:
    rows = {
        "core_mom": [(3,), (90,)],
        "core_rsi_slope": [(5, 9)], "core_macd_hist": [(30, 7, 4)], "core_adx_norm": [(3,)], "core_rsi_norm": [(1,)],
        "core_swing_position": [(3, 30)], "core_atr_ratio": [(1,), (40,)], "core_bb_width": [(7, 1.5)],
    }  # fmt: skip
    columns = [spec for family in CORE_31.families if family.key in rows for spec in family.specs(rows[family.key])]
    panel = market()
    stream = CoreStream.warm(first_bars(panel, 40), columns)
    assert_same_bits(pushed(stream, panel, range(40, ROWS)), recomputed(panel, columns), panel.symbols, range(40, ROWS))


def test_a_stream_goes_on_from_its_saved_state(tmp_path: Path) -> None:
    panel = market()
    stream = CoreStream.warm(first_bars(panel, 90))
    saved = stream.state()
    before = pushed(stream, panel, range(90, 150))
    np.savez(tmp_path / "stream.npz", **saved)  # type: ignore[arg-type]
    with np.load(tmp_path / "stream.npz") as file:
        again = CoreStream.of_state(panel.symbols, dict(file))
    np.testing.assert_array_equal(pushed(again, panel, range(90, 150)).view(np.uint32), before.view(np.uint32))


def test_a_state_of_other_columns_or_symbols_is_refused() -> None:
    state = CoreStream.warm(first_bars(market(), 60)).state()
    symbols = market().symbols
    with pytest.raises(DataError, match="counts of the stream's state"):
        CoreStream.of_state(symbols[:2], state)
    mom, *others = CORE_31.families
    columns = [*(s for s in mom.specs([(5,), (10,), (21,), (50,)])), *(s for f in others for s in f.specs())]
    with pytest.raises(DataError, match="formulas of the stream's state"):
        CoreStream.of_state(symbols, state, columns)
    with pytest.raises(MissingDataError, match=r"lacks \['memory'\]"):
        CoreStream.of_state(symbols, {k: v for k, v in state.items() if k != "memory"})


def test_a_symbol_without_a_bar_stays_as_it_was() -> None:
    panel = Panel(market().frame.filter(~pl.col("delisted").any().over("symbol")))
    a, b = CoreStream.warm(first_bars(panel, 100)), CoreStream.warm(first_bars(panel, 100))
    times = np.full(len(panel.symbols), np.datetime64("NaT"), "M8[us]")
    assert np.isnan(b.push(np.full((len(times), 5), 5.0), times)).all()
    np.testing.assert_array_equal(pushed(a, panel, range(100, 120)), pushed(b, panel, range(100, 120)))


def test_after_a_delisting_nothing_is_said() -> None:
    stream, bar = CoreStream.empty(("A", "B")), np.tile([2.0, 3.0, 1.0, 2.0, 9.0], (2, 1))
    days = np.datetime64("2024-01-01T21:00", "us") + np.timedelta64(1, "D") * np.arange(3)
    assert np.isfinite(stream.push(bar, np.repeat(days[0], 2))).sum(axis=1).tolist() == [3, 3]  # of the time
    said = stream.push(bar, np.repeat(days[1], 2), delisted=np.array([True, False]))
    again = stream.push(bar, np.repeat(days[2], 2))
    assert np.isnan(said[0]).all() and np.isnan(again[0]).all() and np.isfinite(again[1]).sum() == 5  # and two returns


def test_what_a_history_lacks_stays_undefined() -> None:
    frame = market().frame.with_columns(pl.lit(None, pl.Float64).alias(c) for c in ("open", "high", "low", "volume"))
    panel = Panel(frame.filter(pl.col("symbol") == "S01"))
    stream = CoreStream.warm(first_bars(panel, 100))
    assert_same_bits(pushed(stream, panel, range(100, ROWS)), recomputed(panel), panel.symbols, range(100, ROWS))
    assert stream.lacking.sum() == 11


def test_a_bad_push_says_why_and_changes_nothing() -> None:
    panel = first_bars(market(assets=3), 100)
    stream = CoreStream.warm(panel)
    state = stream.state()
    good, later = np.full((3, 5), 10.0), np.full(3, np.datetime64("2010-01-01T21:00", "us"))
    with pytest.raises(DataError, match=r"S01: high is -1\.0 at 2010-01-01"):
        stream.push(np.where(np.arange(15).reshape(3, 5) == 6, -1.0, good), later)
    with pytest.raises(DataError, match="S00: close is inf"):
        stream.push(np.where(np.arange(15).reshape(3, 5) == 3, np.inf, good), later)
    with pytest.raises(DataError, match="S00: a bar that ends 2000-04-11T21"):
        stream.push(good, np.full(3, panel.frame["timestamp"].dt.replace_time_zone(None).to_numpy()[99]))
    with pytest.raises(DataError, match=r"expected \(3, 5\) and \(3,\) for 3 symbols"):
        stream.push(good[:2], later)
    with pytest.raises(ConfigError, match="none of core_31"):
        CoreStream.empty(("A",), TECHNICAL.families[0].specs())
    assert all((value.view(np.uint8) == stream.state()[name].view(np.uint8)).all() for name, value in state.items())


def test_real_bars_in_two_streams_equal_their_histories(real_data: Path) -> None:
    """Five raw daily series, 1999-2021, with their splits and dividends: Apple's 2000, 2005, 2014 and 2020 are among them."""
    frames = []
    for symbol in ("AAPL", "GE", "KO", "MSFT", "NVDA"):
        file = real_data / "daily" / "pooksoft_daily_adjusted_1999_2021" / f"DA-{symbol}-T-2021-04-21.csv"
        frames.append(pl.read_csv(file, try_parse_dates=True).with_columns(symbol=pl.lit(symbol)).rename(
            {"dividend_amount": "dividend", "split_coefficient": "split"}))  # fmt: skip
    end = pl.col("timestamp").cast(pl.Datetime("us")).dt.offset_by("21h").dt.replace_time_zone("UTC").cast(UTC)
    frame = pl.concat(frames).with_columns(timestamp=end, known_at=end).with_columns(pl.col(*PRICE_COLUMNS).cast(pl.Float64))
    panel = Panel.of(frame)
    rows = int(frame.filter(symbol="AAPL").height)
    whole, cut = recomputed(panel), rows - 700
    stream = CoreStream.warm(first_bars(panel, cut))
    assert_same_bits(pushed(stream, panel, range(cut, rows)), whole, panel.symbols, range(cut, rows))
