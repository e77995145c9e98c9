"""The values that flow between the stages, and the protocols of those who act on them.

Values are frozen, validated once at the door, picklable, and carry a content-hash `id`. Axes: T time, A assets,
F features, H horizons, Q quantiles. Times are numpy `datetime64[us]` in UTC.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa

from rlaif_ray.errors import DataError, LookAheadError, MissingDataError, SchemaError, did_you_mean

OPEN, HIGH, LOW, CLOSE, VOLUME = range(5)
PRICE_COLUMNS = ("open", "high", "low", "close", "volume")
KEYS = ("symbol", "timestamp", "known_at")
UTC = pl.Datetime("us", "UTC")

Target = Literal["return", "log_volatility"]
PriceKind = Literal["raw", "split_adjusted", "vendor_adjusted"]
T = TypeVar("T")


def content_hash(value: Any) -> str:
    """Hash of what a value says (not of where or when it was made): 16 hex digits, equal on every machine."""
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()[:16]


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, np.ndarray):
        digest.update(f"nd{value.dtype.str}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes() if value.dtype != object else repr(value.tolist()).encode())
    elif isinstance(value, pl.DataFrame):
        digest.update(repr(value.schema).encode())
        digest.update(value.hash_rows(seed=0).to_numpy().tobytes())
    elif is_dataclass(value) and not isinstance(value, type):
        digest.update(type(value).__name__.encode())
        for f in fields(value):
            if f.compare:
                digest.update(f.name.encode())
                _feed(digest, getattr(value, f.name))
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            digest.update(f"k{key}".encode())
            _feed(digest, value[key])
    elif isinstance(value, (list, tuple)):
        digest.update(f"l{len(value)}".encode())
        for item in value:
            _feed(digest, item)
    else:
        digest.update(f"{type(value).__name__}{value!r}".encode())


@dataclass(frozen=True, eq=False)
class Panel:
    """Columns over (symbol, timestamp), each row with the moment `known_at` when it could first be known.

    One as-of view: unique on (symbol, timestamp) and sorted by it. `timestamp` is the END of the interval. Build with
    `Panel.of`, which checks once; everything after may assume it.
    """

    frame: pl.DataFrame

    @classmethod
    def of(cls, frame: Any) -> Panel:
        """From a polars, pandas or Arrow frame with `symbol`, `timestamp`, `known_at` and value columns.

        Naive times are refused: a time without a zone is a guess. Raises `SchemaError` for missing keys or wrong
        types and `DataError` for two rows on one (symbol, timestamp) or a row known before its interval ended.
        """
        if not isinstance(frame, pl.DataFrame):
            frame = pl.from_arrow(frame) if isinstance(frame, (pa.Table, pa.RecordBatch)) else pl.from_pandas(frame)
        missing = [k for k in KEYS if k not in frame.columns]
        if missing:
            raise SchemaError(f"a Panel needs the columns {list(KEYS)}; {missing} are missing from {frame.columns}")
        for key in ("timestamp", "known_at"):
            dtype = frame.schema[key]
            if not isinstance(dtype, pl.Datetime) or dtype.time_zone is None:
                raise SchemaError(f"Panel column {key!r} is {dtype}; expected a datetime with a time zone")
        frame = frame.with_columns(
            pl.col("symbol").cast(pl.String), pl.col("timestamp", "known_at").dt.convert_time_zone("UTC").cast(UTC)
        ).select(*KEYS, *[c for c in frame.columns if c not in KEYS])
        frame = frame.sort("symbol", "timestamp")
        if frame.select(pl.struct("symbol", "timestamp").is_duplicated().any()).item():
            row = frame.filter(pl.struct("symbol", "timestamp").is_duplicated()).row(0)
            raise DataError(f"two rows for symbol {row[0]!r} at {row[1]}; expected one (an as-of view keeps the latest revision)")
        early = frame.filter(pl.col("known_at") < pl.col("timestamp"))
        if early.height:
            row = early.row(0)
            raise DataError(
                f"{row[0]!r} at {row[1]} is marked known at {row[2]}, before its interval ended; check `stamp` and `tz` of the source"
            )
        return cls(frame)

    @property
    def columns(self) -> list[str]:
        """Value columns, keys left out."""
        return [c for c in self.frame.columns if c not in KEYS]

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return tuple(sorted(self.frame["symbol"].unique()))

    @cached_property
    def id(self) -> str:
        return content_hash(self.frame)

    def to_pandas(self) -> Any:
        return self.frame.to_pandas()

    def as_of(self, moment: np.datetime64) -> Panel:
        """Rows known at `moment` (known_at <= moment)."""
        return Panel(self.frame.filter(pl.col("known_at") <= pl.lit(moment.astype("datetime64[us]")).dt.replace_time_zone("UTC")))


@dataclass(frozen=True, eq=False)
class Cube:
    """What simulators and networks eat: one panel as dense arrays, built once, shared zero-copy through Ray.

    Row t is decided on at `known_at[t]`, when all of it is known; fills happen at row t+1.
    """

    times: np.ndarray  # (T,) datetime64[us], bar ends, UTC, strictly rising
    known_at: np.ndarray  # (T,) datetime64[us]: the decision moment of row t
    symbols: tuple[str, ...]  # (A,)
    prices: np.ndarray  # (T,A,5) float64 raw open/high/low/close/volume; NaN where the symbol has no bar or no such column
    features: np.ndarray  # (T,A,F) float32; NaN where not yet defined
    feature_names: tuple[str, ...]  # (F,)
    tradable: np.ndarray  # (T,A) bool: may be filled at row t
    splits: np.ndarray  # (T,A) float64: shares after / shares before, effective before the open of row t; 1 = none
    dividends: np.ndarray  # (T,A) float64 USD a share (as traded at row t), paid to who held at the close of t-1; 0 = none
    delisted: np.ndarray  # (T,A) bool: True on the first row at which the symbol no longer exists, and after
    bars_per_year: float  # measured from the exchange calendar and the bar size
    price_kind: PriceKind = "raw"

    def __post_init__(self) -> None:
        t, a = len(self.times), len(self.symbols)
        shapes = {
            "known_at": (t,), "prices": (t, a, 5), "features": (t, a, len(self.feature_names)), "tradable": (t, a),
            "splits": (t, a), "dividends": (t, a), "delisted": (t, a),
        }  # fmt: skip
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise SchemaError(f"Cube.{name} has shape {getattr(self, name).shape}; expected {shape} for {t} times and {a} symbols")
        if t > 1 and not (np.diff(self.times) > np.timedelta64(0)).all():
            raise DataError("Cube.times must rise strictly; time goes backwards or repeats")

    @property
    def close(self) -> np.ndarray:
        """(T,A) float64 raw close."""
        return self.prices[:, :, CLOSE]

    @property
    def has_opens(self) -> bool:
        """Every tradable bar has an open to fill at."""
        return bool(np.isfinite(self.prices[:, :, OPEN][self.tradable]).all())

    @cached_property
    def id(self) -> str:
        return content_hash(self)

    @cached_property
    def listed(self) -> np.ndarray:
        """(T,A) bool: has had a price and still exists. A halted name stays listed, so that a halt is no reason to sell."""
        return np.logical_or.accumulate(np.isfinite(self.close), axis=0) & ~self.delisted

    def feature(self, name: str) -> np.ndarray:
        """(T,A) float32, one feature by name."""
        if name not in self.feature_names:
            raise MissingDataError(f"no feature {name!r} among {len(self.feature_names)}.{did_you_mean(name, self.feature_names)}")
        return self.features[:, :, self.feature_names.index(name)]

    def row(self, as_of: np.datetime64) -> int:
        """The last row whose decision moment is at or before `as_of`."""
        t = int(np.searchsorted(self.known_at, as_of, side="right")) - 1
        if t < 0:
            raise MissingDataError(f"as_of {as_of} is before the first known bar {self.known_at[0]}")
        return t

    def head(self, rows: int) -> Cube:
        """The first `rows` rows: the cube as it stood then."""
        return Cube(
            self.times[:rows], self.known_at[:rows], self.symbols, self.prices[:rows], self.features[:rows], self.feature_names,
            self.tradable[:rows], self.splits[:rows], self.dividends[:rows], self.delisted[:rows], self.bars_per_year, self.price_kind,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Forecast:
    """A predicted distribution at one moment. Quantiles never cross: they rise along the last axis."""

    as_of: np.datetime64
    target: Target  # return: cumulative simple return from the close at as_of to the close h bars later;
    # log_volatility: half the log of the mean per-bar variance over those h bars
    symbols: tuple[str, ...]
    horizons: tuple[int, ...]  # (H,) bars
    levels: tuple[float, ...]  # (Q,) in (0, 1), rising
    quantiles: np.ndarray  # (A,H,Q) float64; NaN where the model had too little history
    model: str

    def at_level(self, horizon: int, level: float) -> np.ndarray:
        """(A,) quantile at one horizon and level."""
        return self.quantiles[:, self.horizons.index(horizon), self.levels.index(level)]


@dataclass(frozen=True, eq=False)
class ForecastTable:
    """Forecasts of one model and target over many decision rows, dense: values (T,A,H,Q). Long Arrow at rest."""

    as_of: np.ndarray  # (T,) datetime64[us]
    target: Target
    symbols: tuple[str, ...]
    horizons: tuple[int, ...]
    levels: tuple[float, ...]
    values: np.ndarray  # (T,A,H,Q) float32
    model: str

    def __post_init__(self) -> None:
        shape = (len(self.as_of), len(self.symbols), len(self.horizons), len(self.levels))
        if self.values.shape != shape:
            raise SchemaError(f"ForecastTable.values has shape {self.values.shape}; expected (T,A,H,Q) = {shape}")
        with np.errstate(invalid="ignore"):
            if (np.diff(self.values, axis=-1) < 0).any():
                raise DataError(f"quantiles of {self.model} cross; they must rise with the level")

    @cached_property
    def id(self) -> str:
        return content_hash(self)

    def at(self, as_of: np.datetime64) -> Forecast:
        found = np.flatnonzero(self.as_of == as_of)
        if not len(found):
            raise MissingDataError(f"{self.model} has no forecast made at {as_of}")
        return Forecast(as_of, self.target, self.symbols, self.horizons, self.levels, self.values[found[0]].astype(np.float64), self.model)

    def to_arrow(self) -> pa.Table:
        """Long form: as_of, symbol, horizon, level, value, model, target."""
        t, a, h, q = np.indices(self.values.shape).reshape(4, -1)
        return pa.table({
            "as_of": pa.array(self.as_of[t], pa.timestamp("us")), "symbol": np.asarray(self.symbols)[a],
            "horizon": np.asarray(self.horizons, np.int32)[h], "level": np.asarray(self.levels, np.float64)[q],
            "value": self.values.reshape(-1), "model": [self.model] * t.size, "target": [self.target] * t.size,
        })  # fmt: skip

    @classmethod
    def of_arrow(cls, table: pa.Table) -> ForecastTable:
        """The inverse of `to_arrow` (rows in any order, none missing)."""
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        frame = frame.sort("as_of", "symbol", "horizon", "level")
        keys = [frame[c].unique().sort() for c in ("as_of", "symbol", "horizon", "level")]
        shape = tuple(len(k) for k in keys)
        if frame.height != int(np.prod(shape)):
            raise DataError(f"a forecast table of {frame.height} rows does not fill its grid of {shape}")
        times, symbols, horizons, levels = keys
        return cls(
            times.to_numpy().astype("datetime64[us]"), frame["target"][0], tuple(symbols), tuple(int(h) for h in horizons),
            tuple(float(x) for x in levels), frame["value"].to_numpy().astype(np.float32).reshape(shape), frame["model"][0],
        )  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """A statement that can be checked: a feature, the value that was seen, and what is made of it."""

    feature: str
    value: float
    statement: str


Origin = Literal["rules", "llm", "thesis"]


@dataclass(frozen=True)
class Voice:
    """Who speaks, when there is more than one word of theirs on one question: rounds of a debate, samples of one model."""

    author: str
    origin: Origin = "rules"
    round: int = 0
    sample: int = 0

    @property
    def name(self) -> str:
        """The author, and the round and the sample where they are not the first."""
        return self.author + f"/round={self.round}" * bool(self.round) + f"/sample={self.sample}" * bool(self.sample)


@dataclass(frozen=True)
class Opinion:
    """A reasoned, judgeable stance on one symbol: P(residual return over the horizon > 0), with its claims.

    The residual return is what is left of the symbol's return after its beta times the universe's and its sector's
    (`feedback.yardstick`). Whoever says `quantiles` of it is judged by them, and `p_up` is what they imply.
    """

    author: str
    as_of: np.datetime64
    symbol: str
    horizon_bars: int
    p_up: float
    claims: tuple[Claim, ...]
    narrative: str
    prompt_hash: str  # of the question and the evidence pack: symbol, as_of, horizon, content known then
    max_weight: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    origin: Origin = "rules"
    model: str = "rules-1"
    quantiles: tuple[tuple[float, float], ...] = ()  # (level, residual return), both rising; empty: only p_up is said
    round: int = 0  # of a debate
    sample: int = 0  # of several drawn from one model

    def __post_init__(self) -> None:
        if not 0.0 < self.p_up < 1.0:
            raise DataError(f"{self.author} on {self.symbol}: p_up is {self.p_up}; expected strictly between 0 and 1")
        levels, values = [q[0] for q in self.quantiles], [q[1] for q in self.quantiles]
        if levels != sorted(set(levels)) or values != sorted(values) or not all(0 < x < 1 for x in levels):
            raise DataError(f"{self.author} on {self.symbol}: quantiles {self.quantiles}; expected levels in (0, 1) and returns that rise")

    @property
    def voice(self) -> Voice:
        return Voice(self.author, self.origin, self.round, self.sample)

    @cached_property
    def id(self) -> str:
        return content_hash(self)

    @property
    def confidence(self) -> float:
        """Distance from no opinion, in [0, 1)."""
        return abs(2.0 * self.p_up - 1.0)

    @property
    def stance(self) -> Literal["strong_sell", "sell", "hold", "buy", "strong_buy"]:
        """Five steps, derived from p_up: hold within 0.5 +- 0.02, strong beyond +- 0.10."""
        tilt = self.p_up - 0.5
        if abs(tilt) <= 0.02:
            return "hold"
        if tilt > 0:
            return "strong_buy" if tilt > 0.10 else "buy"
        return "strong_sell" if tilt < -0.10 else "sell"


@dataclass(frozen=True)
class Abstention:
    """No data is not neutral: an analyst who cannot say anything says why."""

    author: str
    as_of: np.datetime64
    symbol: str
    horizon_bars: int
    reason: str


def code_of(text: str) -> int:
    """A number of 64 bits in place of a text, to compare by; 0 is nobody's."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") | 1


TRAITS = ("log_words", "claims")  # of an opinion's text: log of 1 + words of the narrative, number of claims


def traits_of(narrative: str, claims: int) -> tuple[float, float]:
    """The `TRAITS` of one opinion."""
    return float(np.log1p(len(narrative.split()))), float(claims)


@dataclass(frozen=True, eq=False)
class OpinionTable:
    """Opinions in bulk, dense, as learners and judges read them: p_up (T,A,K), NaN where the author abstained.

    Where one author speaks more than once on a question, each `Voice` is a column, and `authors` are the voices' names.
    """

    as_of: np.ndarray  # (T,) datetime64[us]: decision moments at which opinions were given, rising
    symbols: tuple[str, ...]  # (A,)
    authors: tuple[str, ...]  # (K,)
    p_up: np.ndarray  # (T,A,K) float64
    horizon_bars: int
    voices: tuple[Voice, ...] = ()  # (K,); empty: one rule an author
    levels: tuple[float, ...] = ()  # (Q,)
    quantiles: np.ndarray | None = None  # (T,A,K,Q) of the residual return; NaN where only p_up was said
    prompts: np.ndarray | None = None  # (T,A,K) uint64 prompt hashes, 0 where nothing was said; None: all were asked the same
    traits: np.ndarray | None = None  # (T,A,K,X) float32, what a reader sees of the text beside p_up; None: no texts
    trait_names: tuple[str, ...] = ()  # (X,)

    @classmethod
    def of(cls, opinions: Sequence[Opinion | Abstention], symbols: tuple[str, ...], authors: tuple[str, ...]) -> OpinionTable:
        """From single opinions in any order; what is not there, or abstained, is NaN. `authors` names authors or voices.

        Raises `DataError` for opinions over several horizons, or whose quantiles are at several sets of levels.
        """
        horizons = {o.horizon_bars for o in opinions}
        if len(horizons) > 1:
            raise DataError(f"opinions over {sorted(horizons)} bars do not go into one table; expected one horizon")
        said = [o for o in opinions if isinstance(o, Opinion)]
        levels = {tuple(q[0] for q in o.quantiles) for o in said if o.quantiles}
        if len(levels) > 1:
            raise DataError(f"quantiles at {len(levels)} sets of levels do not go into one table; expected one")
        as_of = np.unique(np.array([o.as_of for o in opinions], "datetime64[us]"))
        rows = {moment: i for i, moment in enumerate(as_of.tolist())}
        assets, columns = {s: i for i, s in enumerate(symbols)}, {a: i for i, a in enumerate(authors)}
        shape = len(as_of), len(symbols), len(authors)
        asked = levels.pop() if levels else ()
        p_up, quantiles = np.full(shape, np.nan), np.full((*shape, len(asked)), np.nan) if asked else None
        prompts, traits = np.zeros(shape, np.uint64), np.full((*shape, len(TRAITS)), np.nan, np.float32)
        voices = {name: Voice(name) for name in authors}
        for o in said:
            name = o.voice.name
            if name not in columns:
                continue
            at = rows[o.as_of.astype("datetime64[us]").item()], assets[o.symbol], columns[name]
            p_up[at], prompts[at] = o.p_up, code_of(o.prompt_hash)
            traits[at] = traits_of(o.narrative, len(o.claims))
            if quantiles is not None and o.quantiles:
                quantiles[at] = [q[1] for q in o.quantiles]
            voices[name] = o.voice
        return cls(
            as_of, symbols, authors, p_up, horizons.pop() if horizons else 0, tuple(voices.values()), asked, quantiles, prompts, traits,
            TRAITS,
        )  # fmt: skip

    def latest(self, as_of: np.datetime64) -> np.ndarray:
        """(A,K) p_up of the last date at or before `as_of`; NaN where there is none."""
        t = int(np.searchsorted(self.as_of, as_of, side="right")) - 1
        return self.p_up[t] if t >= 0 else np.full(self.p_up.shape[1:], np.nan)


@dataclass(frozen=True)
class Outcome:
    """How an opinion fared once its horizon had closed. `score` judges the belief, the rest the implied trade; never mixed.

    The implied trade is a unit position in the residual return, long where p_up > 0.5, short below: a SELL before a fall
    is right. What can never be judged is `void` and says why; its figures are NaN.
    """

    opinion_id: str
    author: str
    symbol: str
    opened_at: np.datetime64
    closed_at: np.datetime64
    horizon_bars: int
    residual: float  # return over the horizon that is left after beta times the universe's and the sector's
    climatology: float  # p_up of anyone who knew no more than the symbol's past
    score: float  # the proper score of what was said less that of the climatological forecast; log score in nats, or scaled CRPS
    gross: float  # signed residual return of the implied position
    cost: float  # of opening and closing it, fraction of the notional
    net: float
    vol_scaled: float  # net over the residual volatility of the horizon, known when the opinion was given
    drawdown: float  # largest fall of the position's value from its peak on the way, fraction of the notional, >= 0
    barrier: float  # +1 profit barrier first, -1 loss barrier first, 0 neither within the horizon
    void: str = ""  # why it can never be judged; empty: it was


@dataclass(frozen=True)
class Preference(Generic[T]):
    """A judged pair in one context. Usable only for fits that happen after `closed_at` (and the embargo)."""

    symbol: str
    as_of: np.datetime64
    prompt_hash: str
    chosen: T
    rejected: T
    margin: float
    judge: str
    closed_at: np.datetime64

    def swapped(self) -> Preference[T]:
        """The same judgement said the other way round: the margin changes sign."""
        return Preference(self.symbol, self.as_of, self.prompt_hash, self.rejected, self.chosen, -self.margin, self.judge, self.closed_at)


@dataclass(frozen=True, eq=False)
class Portfolio:
    """Money and shares at one moment; float64 throughout."""

    as_of: np.datetime64
    symbols: tuple[str, ...]
    cash_usd: float
    shares: np.ndarray  # (A,)
    prices: np.ndarray  # (A,) last known close, NaN where the symbol never traded
    returns: np.ndarray = field(default_factory=lambda: np.empty(0))  # (k,) the account's own net returns, bar by bar, since it began

    @property
    def equity_usd(self) -> float:
        return float(self.cash_usd + np.nansum(self.shares * np.nan_to_num(self.prices)))

    @property
    def weights(self) -> np.ndarray:
        """(A,) fraction of equity; cash is the rest."""
        return self.shares * np.nan_to_num(self.prices) / self.equity_usd


class MarketView:
    """All that a policy may see at row t: the cube up to t, forecasts and opinions known then, and its own portfolio.

    Rows are absolute; asking for one after t raises `LookAheadError`. Arrays are read-only views, not copies.
    """

    def __init__(
        self, cube: Cube, t: int, portfolio: Portfolio, forecasts: Mapping[str, Forecast] | None = None,
        opinions: Sequence[Opinion | Abstention] = (),
    ) -> None:  # fmt: skip
        if not 0 <= t < len(cube.times):
            raise LookAheadError(f"row {t} is outside the cube of {len(cube.times)} rows")
        late = [o for o in opinions if o.as_of > cube.known_at[t]]
        late_forecast = [m for m, f in (forecasts or {}).items() if f.as_of > cube.known_at[t]]
        if late or late_forecast:
            raise LookAheadError(f"at {cube.known_at[t]} a view was handed what is known later: {(late_forecast or late)[0]}")
        self._cube, self.t, self.portfolio = cube, t, portfolio
        self.forecasts: dict[str, Forecast] = dict(forecasts or {})
        self.opinions = tuple(opinions)

    @property
    def as_of(self) -> np.datetime64:
        return self._cube.known_at[self.t]

    @property
    def symbols(self) -> tuple[str, ...]:
        return self._cube.symbols

    @property
    def feature_names(self) -> tuple[str, ...]:
        return self._cube.feature_names

    @property
    def tradable(self) -> np.ndarray:
        """(A,) bool at row t."""
        return self._cube.tradable[self.t]

    @property
    def listed(self) -> np.ndarray:
        """(A,) bool at row t, see `Cube.listed`."""
        return self._cube.listed[self.t]

    def prices(self, lookback: int = 1) -> np.ndarray:
        """(L,A,5) raw prices of the last `lookback` rows, fewer at the start of the data."""
        return self._cube.prices[max(0, self.t + 1 - lookback) : self.t + 1]

    def features(self, lookback: int = 1) -> np.ndarray:
        """(L,A,F) features of the last `lookback` rows."""
        return self._cube.features[max(0, self.t + 1 - lookback) : self.t + 1]

    def feature(self, name: str, row: int | None = None) -> np.ndarray:
        """(A,) one feature at `row` (default: now)."""
        row = self.t if row is None else row
        self._check(row)
        return self._cube.feature(name)[row]

    def history(self) -> Cube:
        """The cube as it stood at row t."""
        return self._cube.head(self.t + 1)

    def _check(self, row: int) -> None:
        if row > self.t:
            raise LookAheadError(f"row {row} is known only after row {self.t} (as of {self.as_of}); a policy may look at rows <= {self.t}")


@dataclass(frozen=True)
class Decision:
    """Target weights, fractions of equity at the decision close; cash is the rest."""

    as_of: np.datetime64
    weights: Mapping[str, float]
    reason: str
    model: str


@dataclass(frozen=True)
class Trip:
    """A risk control that began to bind at the close of a bar: what it read, and the limit that this broke."""

    at: np.datetime64
    control: str
    reading: float
    limit: float


RUIN = 1e-3  # growth on a bar that loses all, wherever growth is told


@dataclass(frozen=True, eq=False)
class Episode:
    """A path through the market. Row k holds the bar that ends at times[k], after a fill of the decision one bar before."""

    times: np.ndarray  # (T,) bar ends
    symbols: tuple[str, ...]
    weights: np.ndarray  # (T,A) held at the close of the bar
    gross_returns: np.ndarray  # (T,) simple, before costs
    costs: np.ndarray  # (T,) fraction of equity at the bar's start
    turnover: np.ndarray  # (T,) traded notional / equity at the bar's start
    policy: str
    trips: tuple[Trip, ...] = ()  # of the risk controls, in time order

    @property
    def returns(self) -> np.ndarray:
        """(T,) simple net return per bar: equity(close t+1)/equity(close t) - 1."""
        return self.gross_returns - self.costs

    @property
    def equity(self) -> np.ndarray:
        """(T,) growth of 1. Whoever loses all that he has, or more, is left with `RUIN` of it: nothing grows from 0."""
        return np.cumprod(np.maximum(1.0 + self.returns, RUIN))


@dataclass(frozen=True)
class ModelRef:
    """Where an output comes from: stamped on every artefact and answer."""

    name: str
    version: str
    uri: str
    config_hash: str
    data_version: str
    fit_end: str  # ISO time of the last row that anything was fitted on
    trained_until: str  # the date up to which a pretrained part may have seen the world; fit_end if none
    licence: str = "MIT"


class Source(Protocol):
    """Where raw data comes from. Picklable: holds strings and numbers, opens files on the worker."""

    def symbols(self) -> list[str]: ...

    def read(self, symbol: str) -> dict[str, pl.DataFrame]:
        """Tables of one symbol by name: `bars` always; `filings`, `news` where there are any (each with the Panel keys)."""
        ...


class Forecaster(Protocol):
    name: str
    target: Target

    def fit(self, cube: Cube, rows: slice) -> None:
        """Learn from targets that have closed inside `rows` and nothing else."""
        ...

    def predict(self, cube: Cube, rows: Sequence[int]) -> ForecastTable:
        """Forecasts made at each row's decision moment, from rows up to it."""
        ...


class Analyst(Protocol):
    name: str

    def opine(self, views: Sequence[MarketView]) -> list[Opinion | Abstention]: ...


class Judge(Protocol):
    """A labeller of pairs beside the market: a person, a scripted rule, a language model."""

    name: str

    def compare(self, first: Opinion, second: Opinion) -> float:
        """Probability that `first` is the better answer to the question that both were asked."""
        ...


POLICY_FILE = "policy.json"  # in the folder of every saved policy


class Policy(Protocol):
    """Acts on what it sees. May also offer `weights(cube, rows) -> (T,A)`, equal to deciding row by row (a law)."""

    name: str

    def decide(self, view: MarketView) -> Decision: ...


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and full float precision: equal values give equal text."""
    return json.dumps(_jsonable(value), sort_keys=True, ensure_ascii=False, indent=1, allow_nan=False)


def _jsonable(value: Any) -> Any:
    """Plain JSON types; not-a-number becomes null, infinity is refused by `json`."""
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    if isinstance(value, np.ndarray):
        return [_jsonable(v) for v in value.tolist()]
    if isinstance(value, np.datetime64):
        return str(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value != value:
        return None
    return value
