"""What a policy sees, as numbers: one recipe, read in bulk for training and from a `MarketView` for decisions, bit for bit alike.

A field is standardised with the mean and deviation of rows that training may use, clipped at 5, and 0 where there is no
data; where data is missing often, a flag says so, because no data is not the average. A constant field is left out. Beside
the assets stands the account: cash, drawdown, turbulence of the market, and the running moments that its ratios are made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numba import float32, float64, njit, types

from rlaif_ray.core import Cube, ForecastTable, MarketView, Opinion, OpinionTable
from rlaif_ray.data.events import total_returns
from rlaif_ray.errors import DataError, MissingDataError
from rlaif_ray.rl.rewards import DOWNSIDE, FALL, MEAN, SQUARE, USUAL, Memory

CLIP = 5.0
OFTEN = 0.01  # share of missing values in the fitted rows from which a field gets a flag
MEDIAN, LOW, HIGH = 0.5, 0.1, 0.9

MANAGER = "manager"  # whose word sums up the desk's
TURBULENCE = "turbulence"  # how the feature's name begins: one number a row, which belongs to no asset
LEAST_VOLATILITY = 1e-4  # a bar, of a market that does not move

PORTFOLIO = ("cash", "drawdown", "turbulence", "mean return", "volatility", "downside")  # what a policy sees of its own account
OWN = 2  # fields that follow an asset's own: 1 where it is listed, and the weight held

Kind = Literal["feature", "return", "forecast", "opinion"]
Stat = Literal["", "median", "spread", "level", "confidence", "novelty", "agreement"]
Sees = Literal["features", "returns", "forecasts", "quantiles", "opinions", "stances"]


@dataclass(frozen=True)
class Layout:
    """How a flat observation reads: A rows of (D fields, listed, held), then P numbers of the account. Arrays and tensors alike."""

    assets: int
    fields: int
    portfolio: int = len(PORTFOLIO)

    @property
    def size(self) -> int:
        return self.assets * (self.fields + OWN) + self.portfolio

    def split(self, flat: Any) -> tuple[Any, Any]:
        """(B, size) -> per asset (B,A,D+2), of the account (B,P): views."""
        cut = self.size - self.portfolio
        return flat[:, :cut].reshape(len(flat), self.assets, self.fields + OWN), flat[:, cut:]


@njit(error_model="numpy")
def write_portfolio(cash, state, turbulence, volatility, out):  # pragma: no cover
    """The account's own numbers (P,) float32: cash (a fraction of equity), drawdown, scaled turbulence, running moments over the usual
    volatility; clipped like every other field.
    """
    out[0], out[1], out[2] = cash, state[FALL], turbulence
    out[3] = state[MEAN] / volatility
    out[4] = np.sqrt(max(state[SQUARE], 0.0)) / volatility
    out[5] = np.sqrt(max(state[DOWNSIDE], 0.0)) / volatility
    for k in range(out.shape[0]):
        out[k] = min(max(out[k], -CLIP), CLIP)


@njit(types.void(float64, types.Array(float64, 1, "C", readonly=True), float64, float64, float32[::1]), cache=True)
def _write_portfolio(cash, state, turbulence, volatility, out):  # pragma: no cover
    write_portfolio(cash, state, turbulence, volatility, out)


@dataclass(frozen=True)
class Field:
    """One number an asset shows: a feature, a past bar's return, a statistic of a forecast, or what the desk makes of it."""

    kind: Kind
    source: str  # name of the feature, model or author; authors joined by + where it is about several
    horizon: int = 0  # bars ahead of a forecast, bars back of a return
    stat: Stat = ""
    level: float = 0.0  # of a quantile
    mean: float = 0.0
    std: float = 1.0
    flagged: bool = False

    @property
    def name(self) -> str:
        if self.kind == "forecast":
            return f"{self.source}[{self.horizon}] {self.stat}" + (f" {self.level:g}" if self.stat == "level" else "")
        if self.kind == "return":
            return f"return[-{self.horizon}]"
        return "desk agreement" if self.stat == "agreement" else f"{self.source} {self.stat}".strip()


@dataclass(frozen=True)
class Recipe:
    """Fields in order; the flags of those that have one follow after all of them. D = len(names)."""

    fields: tuple[Field, ...]
    turbulence: Field | None = None  # of the market, for the account's block
    memory: Memory = USUAL

    @classmethod
    def fit(
        cls, cube: Cube, forecasts: Mapping[str, ForecastTable], desk: OpinionTable | None, *, features: tuple[str, ...],
        sees: tuple[Sees, ...], block_a: slice, train_rows: slice, returns_window: int = 10,
    ) -> Recipe:  # fmt: skip
        """Choose and scale the fields. Features and returns are scaled on block A; forecasts and opinions, which do not exist
        there, on `train_rows`. Nothing after `train_rows` is read. Raises `MissingDataError` when no field has data.

        Parameters
        ----------
        sees : `features`; `returns`, the last `returns_window` bars' total returns; `forecasts`, median and 10-90 spread, and
            `quantiles`, every level of forecasts of returns; `opinions`, the log-odds of each author, and `stances`: the
            manager's confidence |2p - 1| and novelty (how far its log-odds moved since its last word), and the mean sign of
            the analysts. Novelty needs views that hold the desk's last two words.
        """
        wanted = _wanted(forecasts, desk, features, sees, returns_window)
        fitted = []
        for candidate in wanted:
            values = _bulk(candidate, cube, forecasts, desk, block_a if candidate.kind in ("feature", "return") else train_rows)
            known = values[np.isfinite(values)].astype(np.float64)
            if len(known) and known.std() > 1e-9 * max(1.0, abs(known.mean())):
                missing = 1.0 - len(known) / values.size
                fitted.append(replace(candidate, mean=float(known.mean()), std=float(known.std()), flagged=missing > OFTEN))
        of_market = [f for f in fitted if f.source.startswith(TURBULENCE)][:1]
        fields = tuple(f for f in fitted if f not in of_market)
        if not fields:
            names = [f.name for f in wanted]
            raise MissingDataError(f"the policy would see nothing: none of {names} has data; check --rl.sees and --rl.features")
        returns = total_returns(cube)[block_a]
        counts = np.isfinite(returns).sum(axis=1)
        usual = float((np.nansum(returns, axis=1) / np.maximum(counts, 1))[counts > 0].std()) if counts.any() else 0.0
        return cls(fields, of_market[0] if of_market else None, Memory(volatility=max(usual, LEAST_VOLATILITY)))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.fields) + tuple(f"{f.name} missing" for f in self.fields if f.flagged)

    def bulk(self, cube: Cube, forecasts: Mapping[str, ForecastTable], desk: OpinionTable | None, rows: slice) -> np.ndarray:
        """(R,A,D) float32 for decision rows `rows`."""
        return self._scaled([_bulk(f, cube, forecasts, desk, rows) for f in self.fields])

    def bulk_turbulence(self, cube: Cube, rows: slice) -> np.ndarray:
        """(R,) float32, scaled; 0 where it is not known."""
        if self.turbulence is None:
            return np.zeros(rows.stop - rows.start, np.float32)
        return _scaled(self.turbulence, _of_market(cube.feature(self.turbulence.source)[rows]))

    def row(self, view: MarketView) -> np.ndarray:
        """(A,D) float32 at the view's own row."""
        return self._scaled([_row(f, view) for f in self.fields])

    def account(self, view: MarketView) -> np.ndarray:
        """(P,) float32 of the view's own portfolio: what `PORTFOLIO` names."""
        book = view.portfolio
        now = 0.0
        if self.turbulence is not None:
            now = float(_scaled(self.turbulence, _of_market(view.feature(self.turbulence.source)[None]))[0])
        out = np.empty(len(PORTFOLIO), np.float32)
        _write_portfolio(book.cash_usd / book.equity_usd, self.memory.after(book.returns), now, self.memory.volatility, out)
        return out

    def observation(self, view: MarketView) -> np.ndarray:
        """(1,L) float32, flat as the environment shows it (`Layout`)."""
        own = np.stack((view.listed, np.clip(view.portfolio.weights, -CLIP, CLIP)), axis=1).astype(np.float32)
        return np.concatenate((np.concatenate((self.row(view), own), axis=1).reshape(-1), self.account(view)))[None]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> Recipe:
        market = said["turbulence"]
        return cls(tuple(Field(**f) for f in said["fields"]), Field(**market) if market else None, Memory(**said["memory"]))

    def _scaled(self, raw: list[np.ndarray]) -> np.ndarray:
        columns = [_scaled(f, values) for f, values in zip(self.fields, raw, strict=True)]
        flags = [np.isnan(values).astype(np.float32) for f, values in zip(self.fields, raw, strict=True) if f.flagged]
        return np.stack(columns + flags, axis=-1)


def _wanted(
    forecasts: Mapping[str, ForecastTable], desk: OpinionTable | None, features: tuple[str, ...], sees: tuple[Sees, ...], window: int
) -> list[Field]:  # fmt: skip
    """What there might be to see, before anything is known of the data."""
    wanted: list[Field] = []
    if "features" in sees:
        wanted += [Field("feature", name) for name in features]
    if "returns" in sees:
        wanted += [Field("return", "return", lag) for lag in range(window)]
    for model, table in sorted(forecasts.items()):
        if "forecasts" in sees:
            wanted += [Field("forecast", model, h, stat) for h in table.horizons for stat in ("median", "spread")]
        if "quantiles" in sees and table.target == "return":
            wanted += [Field("forecast", model, h, "level", level) for h in table.horizons for level in table.levels]
    if desk is not None:
        if "opinions" in sees:
            wanted += [Field("opinion", author) for author in desk.authors]
        analysts = [author for author in desk.authors if author != MANAGER]
        if "stances" in sees and MANAGER in desk.authors:
            wanted += [Field("opinion", MANAGER, stat="confidence"), Field("opinion", MANAGER, stat="novelty")]
        if "stances" in sees and analysts:
            wanted.append(Field("opinion", "+".join(analysts), stat="agreement"))
    return wanted


def _scaled(field: Field, values: np.ndarray) -> np.ndarray:
    """Float32, standardised and clipped; 0 where it is NaN."""
    scaled = (values.astype(np.float32) - np.float32(field.mean)) / np.float32(field.std)
    return np.where(np.isnan(scaled), np.float32(0), np.clip(scaled, -CLIP, CLIP))


def _bulk(field: Field, cube: Cube, forecasts: Mapping[str, ForecastTable], desk: OpinionTable | None, rows: slice) -> np.ndarray:
    """(R,A) of one field before scaling; NaN where there is none."""
    if field.kind == "feature":
        return cube.feature(field.source)[rows]
    if field.kind == "return":
        at = np.arange(rows.start, rows.stop) - field.horizon
        return np.where((at >= 0)[:, None], total_returns(cube)[np.maximum(at, 0)], np.nan)
    moments = cube.known_at[rows]
    if field.kind == "opinion":
        unheard = [author for author in field.source.split("+") if desk is None or author not in desk.authors]
        if desk is None or unheard:
            raise MissingDataError(f"the policy was trained to hear {unheard[0]!r}, which gave no opinions")
        columns = [desk.authors.index(author) for author in field.source.split("+")]
        at = np.searchsorted(desk.as_of, moments, side="right") - 1
        now, before = (np.where((k >= 0)[:, None, None], desk.p_up[np.maximum(k, 0)][:, :, columns], np.nan) for k in (at, at - 1))
        return _stance(field, now, before)
    if field.source not in forecasts:
        raise MissingDataError(f"the policy was trained to see forecasts of {field.source!r}; there are those of {sorted(forecasts)}")
    table = forecasts[field.source]
    if table.symbols != cube.symbols:
        raise DataError(f"forecasts of {table.model} are for the symbols {table.symbols}; expected those of the cube, {cube.symbols}")
    at = np.minimum(np.searchsorted(table.as_of, moments), len(table.as_of) - 1)
    quantiles = table.values[at][:, :, table.horizons.index(field.horizon)].astype(np.float64)
    return np.where((table.as_of[at] == moments)[:, None], _statistic(field, quantiles, table.levels), np.nan)


def _row(field: Field, view: MarketView) -> np.ndarray:
    """(A,) of one field at the view's row; NaN where there is none."""
    if field.kind == "feature":
        return view.feature(field.source)
    if field.kind == "return":
        return _return(view, field.horizon)
    if field.kind == "opinion":
        return _stance(field, *_words(view, field.source.split("+")))
    for forecast in view.forecasts.values():
        if forecast.model == field.source and forecast.as_of == view.as_of:
            return _statistic(field, forecast.quantiles[:, forecast.horizons.index(field.horizon)], forecast.levels)
    return np.full(len(view.symbols), np.nan)


def _return(view: MarketView, lag: int) -> np.ndarray:
    """(A,) total return of the bar `lag` bars back, from the two rows that make it."""
    row = view.t - lag
    if row < 1:
        return np.full(len(view.symbols), np.nan)
    past, two = view.history(), slice(row - 1, row + 1)
    arrays = {f: getattr(past, f)[two] for f in ("times", "known_at", "prices", "features", "tradable", "splits", "dividends", "delisted")}
    return total_returns(replace(past, **arrays))[1]


def _words(view: MarketView, authors: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """p_up (A,K) of the last moment at which anyone on the desk spoke, and of the moment before it; NaN for who did not."""
    moments = sorted({o.as_of for o in view.opinions})[-2:]
    words = {moment: np.full((len(view.symbols), len(authors)), np.nan) for moment in moments}
    for o in view.opinions:
        if isinstance(o, Opinion) and o.as_of in words and o.voice.name in authors and o.symbol in view.symbols:
            words[o.as_of][view.symbols.index(o.symbol), authors.index(o.voice.name)] = o.p_up
    nothing = np.full((len(view.symbols), len(authors)), np.nan)
    return words[moments[-1]] if moments else nothing, words[moments[0]] if len(moments) == 2 else nothing


def _stance(field: Field, now: np.ndarray, before: np.ndarray) -> np.ndarray:
    """p_up (...,K) of the last word and of the one before it -> (...) as the field has it."""
    match field.stat:
        case "confidence":
            return np.abs(2.0 * now[..., 0] - 1.0)
        case "novelty":
            return _log_odds(now[..., 0]) - _log_odds(before[..., 0])
        case "agreement":
            spoke = np.isfinite(now).sum(axis=-1)
            return np.where(spoke > 0, np.nansum(np.sign(now - 0.5), axis=-1) / np.maximum(spoke, 1), np.nan)
        case _:
            return _log_odds(now[..., 0])


def _statistic(field: Field, quantiles: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """(...,Q) -> (...): one level, the median, or how far the 90% quantile lies above the 10% one (or the nearest levels there are)."""
    wanted = (field.level,) if field.stat == "level" else (MEDIAN,) if field.stat == "median" else (LOW, HIGH)
    at = [int(np.argmin(np.abs(np.asarray(levels) - x))) for x in wanted]
    return quantiles[..., at[0]] if len(at) == 1 else quantiles[..., at[1]] - quantiles[..., at[0]]


def _of_market(values: np.ndarray) -> np.ndarray:
    """(R,A) of a number that all assets share -> (R,): the first that is known, NaN for none."""
    known = np.isfinite(values)
    return np.where(known.any(axis=1), values[np.arange(len(values)), known.argmax(axis=1)], np.nan)


def _log_odds(p_up: np.ndarray) -> np.ndarray:
    return np.log(p_up) - np.log1p(-p_up)
