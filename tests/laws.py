"""Perturb the future and the past stays as it was: one law in three forms, for every stage's tests.

Pure: f(rows known by t) equals f(all rows) up to t, bit for bit. Apply (parameters fixed): replacing every row known
after t by noise changes nothing known by t, bit for bit. Fit: replacing every row known after `fit_end` and refitting
gives the same parameter hash. `f` takes the data and returns what it makes: an array with time on the first axis, a
`Panel`, `Cube`, `ForecastTable`, `OpinionTable`, a sequence of things with `as_of`, or a mapping or tuple of these.
A broken law is an `AssertionError` that says which row moved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import polars as pl

from rlaif_ray.backtest.canaries import noise_market, perturbed
from rlaif_ray.core import KEYS, PRICE_COLUMNS, UTC, Cube, ForecastTable, OpinionTable, Panel, content_hash

Data = TypeVar("Data", Cube, Panel)
Moment = int | np.datetime64
DAY = np.timedelta64(1, "D")


def moments(data: Cube | Panel) -> np.ndarray:
    """(T,) datetime64[us]: when anything in the data became known, rising, each once."""
    known = data.known_at if isinstance(data, Cube) else data.frame["known_at"].dt.replace_time_zone(None).to_numpy()
    return np.unique(known.astype("datetime64[us]"))


def cutoff(data: Cube | Panel, t: Moment) -> np.datetime64:
    """The moment meant by `t`: itself, or the t-th of `moments` (for a Cube: row t's decision)."""
    if isinstance(t, np.datetime64):
        return t.astype("datetime64[us]")
    return data.known_at[t] if isinstance(data, Cube) else moments(data)[t]


def known_by(data: Data, t: Moment) -> Data:
    """The data as it stood at `t`: nothing known later is in it."""
    at = cutoff(data, t)
    return data.head(int((data.known_at <= at).sum())) if isinstance(data, Cube) else data.as_of(at)


def perturb_future(data: Data, t: Moment, rng: np.random.Generator) -> Data:
    """The same data with every row known after `t` replaced by noise of the same shape.

    Keys and times stay. The noise is a possible market (positive prices, low <= open, close <= high, splits, dividends,
    halts, delistings), unrelated to what it replaces. What a source does not have at all (no volume, say) stays absent.
    """
    at = cutoff(data, t)
    return perturbed(data, at, rng) if isinstance(data, Cube) else _perturb_panel(data, at, rng)


def assert_pure(f: Callable[[Data], Any], data: Data, t: Moment) -> None:
    """f(rows known by t) equals f(all rows) up to t, bit for bit."""
    at = cutoff(data, t)
    short, full = known_by(data, t), data
    _assert_same(_up_to(f(short), at, short), _up_to(f(full), at, full), f"what comes after {at} changed what was computed up to it")


def assert_apply(f: Callable[[Data], Any], data: Data, t: Moment, rng: np.random.Generator) -> None:
    """With its parameters fixed, f says the same up to t whatever comes after, bit for bit."""
    at = cutoff(data, t)
    noisy = perturb_future(data, t, rng)
    _assert_same(_up_to(f(noisy), at, noisy), _up_to(f(data), at, data), f"noise after {at} changed what was said by then")


def assert_fit(fit: Callable[[Data], Any], data: Data, fit_end: Moment, rng: np.random.Generator) -> None:
    """Refitting with everything known after `fit_end` replaced gives the same parameters, by hash."""
    seen, unseen = parameter_hash(fit(data)), parameter_hash(fit(perturb_future(data, fit_end, rng)))
    assert seen == unseen, f"noise after {cutoff(data, fit_end)} changed the fitted parameters: the fit saw past its end"


def parameter_hash(parameters: Any) -> str:
    """Content hash of arrays, numbers, torch tensors, or mappings and sequences of them (a `state_dict`, for one)."""
    return content_hash(_plain(parameters))


def _plain(value: Any) -> Any:
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


# --- what of a value was said by a moment -------------------------------------------------------------------------


def _up_to(value: Any, at: np.datetime64, source: Cube | Panel) -> Any:
    """The part of an output known at `at`. An array's first axis is that of the `source` it was made from."""
    if isinstance(value, Cube):
        return {k: v[value.known_at <= at] for k, v in vars(value).items() if isinstance(v, np.ndarray) and k != "id"}
    if isinstance(value, Panel):
        return value.as_of(at).frame
    if isinstance(value, ForecastTable):
        return value.as_of[value.as_of <= at], value.values[value.as_of <= at]
    if isinstance(value, OpinionTable):
        return value.as_of[value.as_of <= at], value.p_up[value.as_of <= at]
    if isinstance(value, Mapping):
        return {k: _up_to(v, at, source) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        known = source.known_at if isinstance(source, Cube) else source.frame["known_at"].dt.replace_time_zone(None).to_numpy()
        assert len(value) == len(known), f"an array of {len(value)} rows cannot be laid against data of {len(known)}"
        return value[known <= at]
    if isinstance(value, (list, tuple)):
        if value and np.ndim(getattr(value[0], "as_of", [])) == 0:
            return [content_hash(v) for v in value if v.as_of <= at]
        return [_up_to(v, at, source) for v in value]
    raise TypeError(f"the laws cannot tell when a {type(value).__name__} was known")


def _assert_same(a: Any, b: Any, broken: str) -> None:
    if isinstance(a, pl.DataFrame):
        assert a.columns == b.columns, f"{broken}: columns {a.columns} against {b.columns}"
        a, b = ({c: f[c].to_numpy() for c in f.columns} for f in (a, b))
    if isinstance(a, Mapping):
        assert list(a) == list(b), f"{broken}: {list(a)} against {list(b)}"
        for key in a:
            _assert_same(a[key], b[key], f"{broken} ({key})")
    elif isinstance(a, np.ndarray):
        assert a.shape == b.shape and a.dtype == b.dtype, f"{broken}: {a.dtype}{a.shape} against {b.dtype}{b.shape}"
        moved = np.argwhere(~_same_bits(a, b))
        assert not len(moved), f"{broken}: {len(moved)} of {a.size} values, first at {moved[0].tolist()}"
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), f"{broken}: {len(a)} items against {len(b)}"
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            _assert_same(x, y, f"{broken} [{i}]")
    else:
        assert a == b, f"{broken}: {a!r} against {b!r}"


def _same_bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Element-wise; any NaN equals any NaN, 0.0 does not equal -0.0."""
    if a.dtype.kind != "f":
        return a == b
    return ((a == b) & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))


# --- noise ---------------------------------------------------------------------------------------------------------


def random_cube(rng: np.random.Generator, rows: int = 300, assets: int = 3, features: int = 2) -> Cube:
    """A daily market without any signal: random walks with splits, dividends, halts and perhaps a delisting."""
    times = np.datetime64("2000-01-03T21:00", "us") + DAY * np.arange(rows)
    market = noise_market(rng, rows, assets)
    return Cube(
        times, times.copy(), tuple(f"S{i:02d}" for i in range(assets)), market["prices"],
        rng.standard_normal((rows, assets, features), np.float32), tuple(f"x{i}" for i in range(features)),
        market["tradable"], market["splits"], market["dividends"], market["delisted"], 252.0,
    )  # fmt: skip


def random_bars(rng: np.random.Generator, rows: int = 300, assets: int = 1) -> Panel:
    """`random_cube` as a panel of cleaned bars, one row a symbol and bar, without the rows after a delisting."""
    cube = random_cube(rng, rows, assets, 0)
    frames = []
    for a, symbol in enumerate(cube.symbols):
        frames.append(pl.DataFrame({
            "symbol": [symbol] * rows, "timestamp": cube.times, "known_at": cube.known_at, "session": cube.times.astype("datetime64[D]"),
            **{name: cube.prices[:, a, i] for i, name in enumerate(PRICE_COLUMNS)}, "dividend": cube.dividends[:, a],
            "split": cube.splits[:, a], "tradable": cube.tradable[:, a], "delisted": cube.delisted[:, a],
        }).filter(pl.col("delisted").cum_sum() <= 1))  # fmt: skip
    in_utc = pl.col("timestamp", "known_at").dt.replace_time_zone("UTC").cast(UTC)
    return Panel.of(pl.concat(frames).with_columns(pl.col(*PRICE_COLUMNS).fill_nan(None), in_utc))


def _perturb_panel(panel: Panel, at: np.datetime64, rng: np.random.Generator) -> Panel:
    frame = panel.frame
    after = frame["known_at"].dt.replace_time_zone(None).to_numpy() > at
    market = noise_market(rng, frame.height, 1, delistings=0.0)
    bars = {name: market["prices"][:, 0, i] for i, name in enumerate(PRICE_COLUMNS)}
    bars |= {"dividend": market["dividends"][:, 0], "split": market["splits"][:, 0]}
    bars |= {name: market[name][:, 0] for name in ("tradable", "delisted")}
    columns = []
    for name in panel.columns:
        old = frame[name]
        if old.null_count() == frame.height:
            continue
        noise = pl.Series(name, bars[name] if name in bars else _noise_like(old, rng), strict=False)
        if noise.dtype.is_float():
            noise = noise.fill_nan(None)
        columns.append(noise.cast(old.dtype).zip_with(pl.Series(after), old))
    return Panel.of(frame.with_columns(columns).select(*KEYS, *panel.columns))


def _noise_like(old: pl.Series, rng: np.random.Generator) -> Sequence[Any] | np.ndarray | pl.Series:
    """Numbers, flags and words that have nothing to do with the old ones; calendar columns stay, being keys in disguise."""
    if old.dtype.is_float():
        return 10.0 * rng.standard_normal(len(old))
    if old.dtype.is_integer():
        return rng.integers(0, 100, len(old))
    if old.dtype == pl.Boolean:
        return rng.random(len(old)) < 0.5
    return [f"word{k}" for k in rng.integers(0, 1000, len(old))] if old.dtype == pl.String else old
