"""Was the opinion right? Closed outcomes, each judged against what anyone could have said from the symbol's own past.

The score is the logarithmic score of the stated probability (Good 1952; Gneiting and Raftery 2007, eq. 3), or the
quantile score of the stated quantiles, less that of the climatological forecast: proper, so only the true belief
maximises its expectation, and 0 for who adds nothing. What the implied trade earned is kept apart from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

import numpy as np
import polars as pl
import pyarrow as pa

from rlaif_ray.core import Cube, Opinion, OpinionTable, Outcome, Voice
from rlaif_ray.errors import DataError, MissingDataError, SchemaError
from rlaif_ray.feedback.scoring import crps_gain, log_gain
from rlaif_ray.feedback.yardstick import CLOSED, NO_FORECAST, NO_MOMENT, NO_SYMBOL, NO_USUAL, OPEN, VOID, OutcomeTerms, Yardstick

MEASURED = ("residual", "climatology")  # of a symbol at a moment, whoever speaks
FIGURES = ("score", "gross", "cost", "net", "vol_scaled", "drawdown", "barrier")
OUTCOME_SCHEMA = pa.schema([
    ("opinion_id", pa.string()), ("author", pa.string()), ("symbol", pa.string()),
    ("opened_at", pa.timestamp("us")), ("closed_at", pa.timestamp("us")), ("horizon_bars", pa.int32()),
    *((name, pa.float64()) for name in (*MEASURED, *FIGURES)),  # null where there is none
    ("void", pa.string()),  # why it can never be judged; empty: it was
])  # fmt: skip
READ = pa.schema([
    ("as_of", pa.timestamp("us")), ("symbol", pa.string()), ("author", pa.string()), ("round", pa.int32()), ("sample", pa.int32()),
    ("horizon_bars", pa.int32()), ("prompt_hash", pa.string()),
    ("p_up", pa.float64()),  # null: abstained
    ("quantiles", pa.string()),  # JSON [[level, residual return], ...]; null: only p_up is said
])  # fmt: skip
IDENTITY = ("as_of", "symbol", "author", "round", "sample", "horizon_bars", "prompt_hash")
SEPARATOR = "\x1f"


@dataclass(frozen=True, eq=False)
class OutcomeTable:
    """Outcomes in bulk, beside the `OpinionTable` that they judge. NaN where nothing was said or nothing has closed."""

    as_of: np.ndarray  # (T,) datetime64[us] when the opinions were given
    opened_row: np.ndarray  # (T,) int64 row of the cube
    closed_row: np.ndarray  # (T,) int64 row at whose decision moment the outcome is known; may lie beyond the data
    closed_at: np.ndarray  # (T,) datetime64[us]; NaT where not closed
    symbols: tuple[str, ...]
    authors: tuple[str, ...]
    horizon_bars: int
    residual: np.ndarray  # (T,A) simple return over the horizon less beta x the universe's and the sector's part
    climatology: np.ndarray  # (T,A) p_up from the symbol's outcomes closed by as_of
    score: np.ndarray  # (T,A,K) nats, or deviations of what is usual for who says quantiles
    gross: np.ndarray  # (T,A,K) signed residual return of the implied unit position
    cost: np.ndarray  # (T,A,K) of opening and closing it, fraction of the notional
    net: np.ndarray  # (T,A,K)
    vol_scaled: np.ndarray  # (T,A,K) net over the residual volatility of the horizon
    drawdown: np.ndarray  # (T,A,K) of the implied position on the way, >= 0
    barrier: np.ndarray  # (T,A,K) +1 profit first, -1 loss first, 0 neither
    void: np.ndarray  # (T,A) int8 why there is no residual, an index into `yardstick.VOID`; 1: not yet

    @property
    def hit(self) -> np.ndarray:
        """(T,A,K) 1 where the stated direction came true, 0 where not, NaN where none was stated or closed."""
        return np.where(np.isnan(self.gross) | (self.gross == 0), np.nan, self.gross > 0)

    def of(self, opinion: Opinion) -> Outcome:
        """The outcome of one opinion of the table; `MissingDataError` while it is open, or where it is not in the table."""
        who = f"{opinion.voice.name} on {opinion.symbol} at {opinion.as_of}"
        t = int(np.searchsorted(self.as_of, opinion.as_of))
        there = t < len(self.as_of) and self.as_of[t] == opinion.as_of
        if not (there and opinion.symbol in self.symbols and opinion.voice.name in self.authors):
            raise MissingDataError(f"no outcome for {who}; it is not in this table")
        at = t, self.symbols.index(opinion.symbol), self.authors.index(opinion.voice.name)
        if np.isnat(self.closed_at[t]):
            raise MissingDataError(f"{who} is open: {self.horizon_bars} bars have not passed")
        measured = {name: float(getattr(self, name)[at[:2]]) for name in MEASURED}
        figures = {name: float(getattr(self, name)[at]) for name in FIGURES}
        void = int(self.void[at[:2]])
        if not void and np.isnan(figures["score"]):
            if not opinion.quantiles:
                raise MissingDataError(f"no outcome for {who}; the table holds an abstention there")
            void = NO_USUAL
        return Outcome(
            opinion_id(opinion), opinion.author, opinion.symbol, opinion.as_of, self.closed_at[t], self.horizon_bars, **measured,
            **figures, void=VOID[void],
        )  # fmt: skip


def close(opinions: OpinionTable, cube: Cube, terms: OutcomeTerms) -> OutcomeTable:
    """Judge every opinion whose horizon has closed inside the cube; the others stay open.

    Parameters
    ----------
    opinions : p_up (T,A,K) given at decision moments of the cube's rows, on its symbols. Who says quantiles is judged by them.

    Raises `DataError` where the table and the cube do not speak of the same symbols and moments, and for a p_up that is
    no probability.
    """
    if opinions.symbols != cube.symbols:
        raise DataError(f"opinions on {len(opinions.symbols)} symbols meet a cube of {len(cube.symbols)}; expected the same ones, in order")
    opened = np.searchsorted(cube.known_at, opinions.as_of)
    if len(opened) and (opened.max() >= len(cube.times) or (cube.known_at[opened] != opinions.as_of).any()):
        raise DataError("an opinion was given between two decision moments of the cube; expected its as_of to be one of known_at")
    certain = (opinions.p_up <= 0) | (opinions.p_up >= 1)
    if certain.any():
        raise DataError(f"p_up is {opinions.p_up[certain][0]:g} in {certain.sum()} opinions; expected strictly between 0 and 1")
    h = opinions.horizon_bars
    if h < 1:
        raise DataError(f"opinions over {h} bars cannot close; expected 1 or more, and at least one opinion")
    by = Yardstick.of(cube, h, terms)
    closed = opened + h
    inside = closed < len(cube.times)
    closed_at = np.where(inside, cube.known_at[np.where(inside, closed, 0)], np.datetime64("NaT", "us"))
    assets = np.arange(len(cube.symbols))[:, None]
    figures = _judged(by, opened[:, None, None], assets, opinions.p_up, opinions.levels, opinions.quantiles)
    return OutcomeTable(
        opinions.as_of, opened, closed, closed_at, opinions.symbols, opinions.authors, h, by.residual[opened],
        by.climatology[opened], **figures, void=by.void[opened],
    )  # fmt: skip


def tabled(outcomes: pa.Table, records: pa.Table, opinions: OpinionTable, cube_known_at: np.ndarray) -> OutcomeTable:
    """Outcomes in long form as the table of the opinions that they judge: what `close` says, where somebody spoke and it has closed.

    Parameters
    ----------
    outcomes : `OUTCOME_SCHEMA`, of some or all of the records.
    records : `READ`, the opinions in long form.
    opinions : the same in bulk.
    cube_known_at : (T,) decision moments of the cube that they were judged on.
    """
    h, shape = opinions.horizon_bars, opinions.p_up.shape
    opened = np.searchsorted(cube_known_at, opinions.as_of)
    inside = opened + h < len(cube_known_at)
    closed_at = np.where(inside, cube_known_at[np.where(inside, opened + h, 0)], np.datetime64("NaT", "us"))
    place = {n: i for i, n in enumerate(opinion_ids(records).to_pylist())}
    at = np.array([place[n] for n in outcomes["opinion_id"].to_pylist()], np.int64)
    row = np.searchsorted(opinions.as_of, records["as_of"].to_numpy().astype("datetime64[us]"))[at]
    asset = _numbered(records["symbol"].to_pylist(), opinions.symbols)[at]
    voice = _numbered([Voice(a, round=r or 0, sample=n or 0).name for a, r, n in _speakers(records)], opinions.authors)[at]
    known = (asset >= 0) & (voice >= 0)
    row, asset, voice = row[known], asset[known], voice[known]
    figures, measured = {n: np.full(shape, np.nan) for n in FIGURES}, {n: np.full(shape[:2], np.nan) for n in MEASURED}
    for name, array in figures.items():
        array[row, asset, voice] = outcomes[name].to_numpy()[known]
    for name, array in measured.items():
        array[row, asset] = outcomes[name].to_numpy()[known]
    void = np.where(np.broadcast_to(inside[:, None], shape[:2]), CLOSED, OPEN).astype(np.int8)
    void[row, asset] = _numbered(outcomes["void"].to_pylist(), VOID)[known]
    return OutcomeTable(
        opinions.as_of, opened, opened + h, closed_at, opinions.symbols, opinions.authors, h, **measured, **figures, void=void
    )


def _speakers(records: pa.Table) -> Iterator[tuple[str, int | None, int | None]]:
    return zip(*(records[name].to_pylist() for name in ("author", "round", "sample")), strict=True)


def _numbered(names: Sequence[str], order: Sequence[str]) -> np.ndarray:
    """(N,) int64 place of each name in `order`; -1 for one that is not there."""
    numbers = {name: i for i, name in enumerate(order)}
    return np.array([numbers.get(name, -1) for name in names], np.int64)


def judge(p_up: np.ndarray, residual: np.ndarray, climatology: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score in nats and signed residual return, both (T,A,K), of p_up (T,A,K) against residual and climatology (T,A)."""
    return log_gain(p_up, climatology[..., None], residual[..., None]), np.sign(p_up - 0.5) * residual[..., None]


def judge_records(
    table: pa.Table, cube_known_at: np.ndarray, symbols: tuple[str, ...], yardsticks: Mapping[int, Yardstick]
) -> pa.Table:  # fmt: skip
    """Outcomes of opinions in long form, of any authors and horizons, as `close` would judge them, bit for bit.

    Parameters
    ----------
    table : the columns of `READ`, one row an opinion, as the records of the desk keep them; others are not looked at.
    cube_known_at : (T,) datetime64[us] decision moments of the cube that the yardsticks were made on.
    symbols : (A,) of that cube.
    yardsticks : by horizon in bars.

    Returns
    -------
    `OUTCOME_SCHEMA`, in the order of the table. Abstentions and what is still open are left out; what can never be judged
    is there once its horizon has closed, with the reason. An opinion that stands there twice is judged twice.

    Raises `DataError` for a horizon without a yardstick, or a yardstick of another cube.
    """
    absent = [name for name in READ.names if name not in table.column_names]
    if absent:
        raise SchemaError(f"records without {absent}; expected the columns {READ.names}")
    shape = len(cube_known_at), len(symbols)
    for h, by in yardsticks.items():
        if by.residual.shape != shape or by.horizon_bars != h:
            raise DataError(f"a yardstick of {by.horizon_bars} bars and shape {by.residual.shape}; expected {h} bars and (T,A) = {shape}")
    said = table.select(READ.names).cast(READ).filter(table["p_up"].is_valid())
    horizons = said["horizon_bars"].to_numpy()
    missing = sorted(set(np.unique(horizons).tolist()) - set(yardsticks))
    if missing:
        raise DataError(f"opinions over {missing} bars and yardsticks for {sorted(yardsticks)}; expected one for every horizon")
    closed = np.searchsorted(cube_known_at, said["as_of"].to_numpy()) + horizons
    now = closed < len(cube_known_at)
    said, closed, horizons = said.filter(pa.array(now)).combine_chunks(), closed[now], horizons[now]
    figures, void = _figures(said, cube_known_at, symbols, closed - horizons, yardsticks)
    return pa.table({
        "opinion_id": opinion_ids(said), "author": said["author"], "symbol": said["symbol"], "opened_at": said["as_of"],
        "closed_at": pa.array(cube_known_at[closed]), "horizon_bars": said["horizon_bars"],
        **{name: pa.array(values, from_pandas=True) for name, values in figures.items()}, "void": pa.array(VOID).take(pa.array(void)),
    }).cast(OUTCOME_SCHEMA)  # fmt: skip


def _figures(
    said: pa.Table, known_at: np.ndarray, symbols: tuple[str, ...], opened: np.ndarray, yardsticks: Mapping[int, Yardstick]
) -> tuple[dict[str, np.ndarray], np.ndarray]:  # fmt: skip
    """`FIGURES` by name and why there are none, an index into `VOID`, all (N,), of records whose horizons have closed."""
    numbers = {symbol: i for i, symbol in enumerate(symbols)}
    names = said["symbol"].fill_null("").combine_chunks().dictionary_encode()
    asset = np.array([numbers.get(name, -1) for name in names.dictionary.to_pylist()], np.int64)[names.indices.to_numpy()]
    p_up, horizons = said["p_up"].to_numpy(), said["horizon_bars"].to_numpy()
    groups, broken = _by_levels(said["quantiles"])
    wrong = [known_at[opened] != said["as_of"].to_numpy(), asset < 0, ~((p_up > 0) & (p_up < 1)) | broken]
    void = np.select(wrong, [NO_MOMENT, NO_SYMBOL, NO_FORECAST], CLOSED)
    figures = {name: np.full(len(said), np.nan) for name in (*MEASURED, *FIGURES)}
    for h in np.unique(horizons).tolist():
        for levels, among, quantiles in groups:
            mine = (horizons[among] == h) & (void[among] == CLOSED)
            at = among[mine]
            if not len(at):
                continue
            part = _judged(yardsticks[h], opened[at], asset[at], p_up[at], levels, quantiles[mine])
            for name, values in (part | {n: getattr(yardsticks[h], n)[opened[at], asset[at]] for n in MEASURED}).items():
                figures[name][at] = values
            void[at] = yardsticks[h].void[opened[at], asset[at]]
    void[(void == CLOSED) & np.isnan(figures["score"])] = NO_USUAL
    return figures, void


def _by_levels(texts: pa.ChunkedArray) -> tuple[list[tuple[tuple[float, ...], np.ndarray, np.ndarray]], np.ndarray]:
    """Records put together by the levels of their quantiles: levels, rows (n,), quantiles (n,Q); first those that say p_up alone.

    And (N,) bool: says something that is no quantiles.
    """
    stated = texts.is_valid().to_numpy()
    groups: dict[tuple[float, ...], tuple[list[int], list[list[float]]]] = {}
    broken = np.zeros(len(stated), bool)
    said = json.loads(f"[{','.join(texts.filter(pa.array(stated)).to_pylist())}]")
    for row, pairs in zip(np.flatnonzero(stated).tolist(), said, strict=True):
        levels, values = tuple(level for level, _ in pairs), [value for _, value in pairs]
        inside = all(0 < level < 1 for level in levels) and all(map(isfinite, values))
        if levels and inside and all(a < b for a, b in pairwise(levels)) and all(a <= b for a, b in pairwise(values)):
            rows, quantiles = groups.setdefault(levels, ([], []))
            rows.append(row)
            quantiles.append(values)
        else:
            broken[row] = True
    plain = np.flatnonzero(~stated)
    found = [(levels, np.array(rows), np.array(quantiles, np.float64)) for levels, (rows, quantiles) in groups.items()]
    return [((), plain, np.empty((len(plain), 0))), *found], broken


def opinion_ids(table: pa.Table) -> pa.Array:
    """(N,) string: which word of whose, on which question and evidence: 16 hex digits, the same for the same opinion everywhere."""
    frame = pl.from_arrow(table.select(IDENTITY).cast(pa.schema([READ.field(name) for name in IDENTITY])))
    assert isinstance(frame, pl.DataFrame)
    said = pl.concat_str([pl.col("as_of").to_physical(), pl.col(IDENTITY[1:]).cast(pl.String).fill_null("")], separator=SEPARATOR)
    return pa.array([_digest(text) for text in frame.select(said).to_series()], pa.string())


def opinion_id(o: Opinion) -> str:
    """`opinion_ids` of one."""
    moment = int(o.as_of.astype("datetime64[us]").astype(np.int64))
    return _digest(SEPARATOR.join(map(str, (moment, o.symbol, o.author, o.round, o.sample, o.horizon_bars, o.prompt_hash))))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _judged(
    by: Yardstick, rows: np.ndarray, assets: np.ndarray, p_up: np.ndarray, levels: tuple[float, ...], quantiles: np.ndarray | None
) -> dict[str, np.ndarray]:  # fmt: skip
    """`FIGURES` by name, of p_up (...) given at rows and on assets that broadcast with it; NaN where p_up or the residual is.

    Element by element, so that an opinion fares the same in a table and in a stream.
    """
    residual = by.residual[rows, assets]
    score = log_gain(p_up, by.climatology[rows, assets], residual)
    if levels and quantiles is not None:
        usual, spread = by.usual(levels)
        gain = crps_gain(quantiles, usual[rows, assets], spread[rows, assets], residual, levels)
        score = np.where(np.isfinite(quantiles).all(axis=-1) & ~np.isnan(p_up), gain, score)
    side = np.where(np.isnan(score), np.nan, np.sign(p_up - 0.5))
    gross = side * residual + 0.0  # no -0.0 of who takes no position
    cost = np.abs(side) * (2.0 * by.terms.cost_per_side)
    held = [side > 0, side < 0, side == 0]
    drawdown = np.select(held, [by.drawdown[1][rows, assets], by.drawdown[0][rows, assets], 0.0], np.nan)
    barrier = np.select(held, [by.barrier[rows, assets], 0.0 - by.barrier[rows, assets], 0.0], np.nan)
    net = gross - cost
    vol_scaled = net / by.volatility[rows, assets]
    return {"score": score, "gross": gross, "cost": cost, "net": net, "vol_scaled": vol_scaled, "drawdown": drawdown, "barrier": barrier}
