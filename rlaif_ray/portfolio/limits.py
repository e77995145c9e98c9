"""Risk controls: rules with the last word over every policy, the same in training, backtest, paper trading and serving.

`Limits` are numbers; `Controls` bind them to a market. All that a control remembers of a path is one row of a state, which
the path's own net returns make, bar by bar, and nothing else (`replay`): who knows an account's returns knows its controls.
A decision at the close of row t goes through `admit` after `observe` has seen the bar that ends there. In this order:

1. drawdown and intraday breakers: while one of them is tripped, all targets are 0. What a session trips binds all that is
   decided at its closes, the last one too: on daily bars, the one decision that the next bar fills.
2. name cap: what is cut of a weight goes to the names of the same side below the cap, pro rata (`execution.caps`); |w| counts.
3. sector cap: a sector whose |w| add up to more is scaled down to it; the rest is cash.
4. volatility target and conformal CVaR: all weights times the smaller of limit / reading, where that is below 1. Both read
   the path's returns over the exposure that they themselves left it: what it would have returned without them. Else a
   halved exposure would halve the reading, and the path would settle at the geometric mean of its own risk and the limit.
5. turbulence pause and daily loss: no weight is larger than the one held, nor on the other side.
6. value at risk of what is left by now, over the names' last 250 returns: scaled down to the limit.

Where 2 to 5 took more from one side than from the other, the larger side of a long-short target is scaled until the net
weight is within [-1, 1] again (or within what was asked for).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif_ray.core import Cube, Trip
from rlaif_ray.data.events import total_returns
from rlaif_ray.errors import ConfigError, DataError, ExecutionError
from rlaif_ray.execution.caps import effective_cap
from rlaif_ray.features.covariance import turbulence
from rlaif_ray.portfolio import limit_rules as rules
from rlaif_ray.portfolio.limit_rules import CONTROLS, FINE, LOSSES, READING, SHAPES, STARTS
from rlaif_ray.portfolio.risk import LEAST_BARS, MEMORY

TURBULENCE_BARS = 252  # before each reading, which make its mean and covariances: a year of days


@dataclass(frozen=True)
class Limits:
    """How far a path may go, as fractions of its equity. A value that is off is not applied. Raises `ConfigError`."""

    max_weight: float = 1.0  # of one name; 1 is off; below 1/A it becomes 1/A
    max_sector: float = 1.0  # of one sector's names together; 1 is off
    drawdown: float = 1.0  # fall from the peak that trips the breaker; 1 is off
    cooldown_bars: int = 20  # bars in cash after that; then the peak starts anew at the equity of the time
    daily_loss: float = 1.0  # since the last close of the session before; no new risk for the session's rest; 1 is off
    intraday_loss: float = 1.0  # since the session's highest close; cash for the session's rest, never on daily bars; 1 is off
    turbulence: float = 1.0  # quantile of the turbulence of the fit rows above which nothing is bought; 1 is off
    target_volatility: float = 0.0  # a year, from 20 bars on; 0 is off
    cvar: float = 0.0  # budget of a bar for the mean loss beyond the adaptive conformal quantile, from 60 bars on; 0 is off
    cvar_alpha: float = 0.95  # level of that quantile
    var: float = 0.0  # of a bar at 99%, the larger of historical and Cornish-Fisher, from 60 rows of the market on; 0 is off

    def __post_init__(self) -> None:
        for name in ("max_weight", "max_sector", "drawdown", "daily_loss", "intraday_loss", "turbulence"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"limit {name!r} is {getattr(self, name)}; expected a fraction in (0, 1], where 1 switches it off")
        for name in ("target_volatility", "cvar", "var"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"limit {name!r} is {getattr(self, name)}; expected a number above 0, or 0, which switches it off")
        if self.cooldown_bars < 1:
            raise ConfigError(f"limit 'cooldown_bars' is {self.cooldown_bars}; expected 1 or more ('drawdown' 1 switches the breaker off)")
        if not 0 < self.cvar_alpha < 1:
            raise ConfigError(f"limit 'cvar_alpha' is {self.cvar_alpha}; expected a level in (0, 1), 0.95 for the worst bar in twenty")

    def terms(self, assets: int, threshold: float, bars_per_year: float) -> np.ndarray:
        """(12,) float64 as the compiled code reads them: limits in the order of `CONTROLS`, then what else there is."""
        off = math.inf
        most = [off if x == 1 else x for x in (self.max_sector, self.drawdown, self.daily_loss, self.intraday_loss)]
        name = off if self.max_weight == 1 else effective_cap(self.max_weight, assets)
        risks = [x or off for x in (self.target_volatility, self.cvar, self.var)]
        return np.array([name, most[0], threshold, *most[1:], *risks, self.cooldown_bars, 1.0 - self.cvar_alpha, bars_per_year])


def sector_numbers(symbols: Sequence[str], sectors: Mapping[str, str]) -> tuple[int, ...]:
    """(A,) number of each name's sector, -1 for a name in no sector; empty where no name is in any."""
    known = {sector: k for k, sector in enumerate(sorted({sectors[s] for s in symbols if sectors.get(s)}))}
    return tuple(known.get(sectors.get(s, ""), -1) for s in symbols) if known else ()


@dataclass(frozen=True, eq=False)
class Controls:
    """`Limits` over one market: N paths, each with one row of a state (N,S) float64. Picklable; `arrays` feed compiled callers."""

    limits: Limits
    symbols: tuple[str, ...]
    known_at: np.ndarray  # (T,)
    terms: np.ndarray  # (12,), see `Limits.terms`
    bars: np.ndarray  # (T,2) float64: STARTS, READING
    sectors: np.ndarray  # (A,) int64, -1 where a name is in none
    returns: np.ndarray  # (T,A) float64 total returns for the value at risk, complete; (0,A) where that is off

    @classmethod
    def of(cls, cube: Cube, limits: Limits, sectors: Mapping[str, str], fit_rows: slice | None = None) -> Controls:
        """Bind limits to a cube. What a control reads of a row depends on rows up to it alone, but for the turbulence threshold.

        A session is the UTC date in which a bar lies; a bar that ends at midnight belongs to the day before.

        Parameters
        ----------
        sectors : sector by symbol, of the cube's and others; a name without one is in no sector, and under no sector's cap.
        fit_rows : rows whose turbulence makes the threshold; needed where the turbulence pause is on, and only there.

        Raises `DataError` for a sector cap with sectors of other symbols alone, and for fit rows that hold fewer than 60 readings
        of turbulence.
        """
        t, a = cube.close.shape
        numbers = sector_numbers(cube.symbols, sectors)
        if limits.max_sector < 1 and sectors and not numbers:
            seen = f"none of the {a} symbols ({cube.symbols[0]} is the first) is among the {len(sectors)} whose sectors are given"
            raise DataError(f"{seen}; expected a sector by symbol, or none at all: name these, or switch the sector cap off (max_sector 1)")
        days = (cube.times - np.timedelta64(1, "us")).astype("datetime64[D]")
        bars = np.full((t, 2), np.nan)
        bars[:, STARTS] = np.concatenate((np.ones(min(t, 1), bool), days[1:] != days[:-1]))
        threshold = math.inf
        if limits.turbulence < 1:
            bars[:, READING] = turbulence(np.ascontiguousarray(total_returns(cube).T), TURBULENCE_BARS)[0]
            threshold = _threshold(bars[:, READING], limits.turbulence, fit_rows)
        returns = _complete(total_returns(cube)) if limits.var > 0 else np.empty((0, a))
        codes, terms = np.array(numbers or a * (-1,), np.int64), limits.terms(a, threshold, cube.bars_per_year)
        return cls(limits, cube.symbols, cube.known_at, terms, bars, codes, returns)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """terms, bars, sectors, returns: the first arguments of `admit_path`; `observe_path` takes the first two."""
        return self.terms, self.bars, self.sectors, self.returns

    def start(self, paths: int) -> np.ndarray:
        """(N,S) float64: the state of paths that begin at the close of any row."""
        state = np.zeros((paths, LOSSES + (MEMORY if self.limits.cvar > 0 else 0)))
        rules.start_paths(self.terms, state)
        return state

    def observe(self, state: np.ndarray, rows: np.ndarray, net: np.ndarray) -> None:
        """Take in the bars that end at the closes of rows (N,), with simple net returns (N,); the state changes in place.

        Raises `ExecutionError`, the state untouched, for a return that is not finite or a row that the market has not.
        """
        rows, net = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(net, np.float64)
        wrong = rules.observe(self.terms, self.bars, state, rows, net)
        if wrong != FINE:
            self._refuse(wrong, rows, f"state {state.shape}, rows {rows.shape} and returns {net.shape}", "net return", net)

    def admit(
        self, state: np.ndarray, rows: np.ndarray, held: np.ndarray, targets: np.ndarray, readings: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What may be traded to: (targets (N,A), trips (N,) int64), of decisions at the closes of rows (N,).

        A bit of `trips` is set while its control is in force: for caps and scalings where they cut this decision, for breakers
        and the pause from their trip to their end, cut or not.

        Parameters
        ----------
        state : as `observe` left it at these rows; not changed.
        held, targets : (N,A) float64 weights at the close, and weights asked for; neither is changed.
        readings : (N,9) float64 or None; takes what each control read, NaN where it is off or has no reading yet.

        Raises `ExecutionError` for weights that are not finite or a row that the market has not.
        """
        rows, held = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(held, np.float64)
        admitted, trips = np.array(targets, np.float64, order="C"), np.empty(len(rows), np.int64)
        seen = np.empty((len(rows), len(CONTROLS))) if readings is None else readings
        wrong = SHAPES
        if held.ndim == admitted.ndim == 2:
            wrong = rules.admit(self.terms, self.bars, self.sectors, self.returns, state, rows, held, admitted, trips, seen)
        if wrong != FINE:
            shapes = f"state {state.shape}, rows {rows.shape}, held {held.shape}, targets {admitted.shape} and readings {seen.shape}"
            values = admitted if wrong == SHAPES else np.concatenate((admitted, held), axis=1)
            self._refuse(wrong, rows, shapes, "target or held weight", values)
        return admitted, trips

    def replay(self, rows: slice, returns: np.ndarray) -> np.ndarray:
        """(1,S): the state of one path whose net returns (k,) belong to the bars that end at the closes of `rows`.

        The same bits as `observe` bar by bar from `start(1)`. An account with k returns at row t: `slice(t + 1 - k, t + 1)`.
        """
        numbers, returns = np.arange(rows.start, rows.stop, dtype=np.int64), np.ascontiguousarray(returns, np.float64)
        state = self.start(1)
        wrong = rules.replay(self.terms, self.bars, state, numbers, returns)
        if wrong != FINE:
            self._refuse(wrong, numbers, f"rows {numbers.shape} and returns {returns.shape}", "net return", returns)
        return state

    def trips(self, rows: slice, masks: np.ndarray, readings: np.ndarray) -> tuple[Trip, ...]:
        """Of one path's decisions on `rows`, with masks (T,) and readings (T,9) from `admit`: where a control begins to bind.

        A breaker that stays tripped, and a cap or a scaling that cuts one decision after the other, is one trip, on the first.
        """
        masks = np.asarray(masks, np.int64)
        began = masks & ~np.concatenate((np.zeros(1, np.int64), masks[:-1]))
        at, which = np.nonzero(began[:, None] >> np.arange(len(CONTROLS)) & 1)
        times = self.known_at[rows]
        return tuple(Trip(times[t], CONTROLS[k], float(readings[t, k]), float(self.terms[k])) for t, k in zip(at, which, strict=True))

    def _refuse(self, wrong: int, rows: np.ndarray, shapes: str, what: str, values: np.ndarray) -> None:
        t, a = len(self.bars), len(self.symbols)
        if wrong == SHAPES:
            raise ExecutionError(f"{shapes} do not fit; expected N paths of controls over {a} symbols")
        if not 0 <= rows[wrong] < t:
            raise ExecutionError(f"path {wrong} is at row {rows[wrong]}; expected one in 0 to {t - 1}")
        bad = np.atleast_1d(values[wrong])
        k = int(np.flatnonzero(~np.isfinite(bad))[0])
        whose = f" of {self.symbols[k % a]}" if bad.size > 1 else ""
        raise ExecutionError(f"{what}{whose} is {bad[k]} in path {wrong} at row {rows[wrong]}; expected a finite number")


def _threshold(readings: np.ndarray, quantile: float, fit_rows: slice | None) -> float:
    if fit_rows is None:
        raise ConfigError(f"limit 'turbulence' is {quantile} without fit rows; expected the rows whose turbulence makes the threshold")
    known = readings[fit_rows][np.isfinite(readings[fit_rows])]
    if len(known) < LEAST_BARS:
        seen = f"fit rows {fit_rows.start} to {fit_rows.stop} hold {len(known)} readings of turbulence"
        raise DataError(f"{seen}; expected {LEAST_BARS} or more, each after {TURBULENCE_BARS} bars; or switch it off (turbulence 1)")
    return float(np.quantile(known, quantile))


def _complete(returns: np.ndarray) -> np.ndarray:
    """(T,A) with the mean of the row's others where a name has none: a name without a past is as risky as the market, not riskless."""
    known = np.isfinite(returns)
    mean = np.where(known, returns, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.ascontiguousarray(np.where(known, returns, mean[:, None]))
