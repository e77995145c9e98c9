"""What opinions over a horizon are measured by: residual returns, what was usual, and the way of both implied positions.

Made once for a cube and a horizon; an opinion of any author is then judged by looking up its row and symbol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numba import boolean, float64, int64, njit, types

from rlaif_ray.core import Cube
from rlaif_ray.data.events import total_returns
from rlaif_ray.execution.kernel import DELISTING_RECOVERY
from rlaif_ray.feedback.scoring import EIGHTIES, NORMAL_EIGHTY, climatological, climatological_quantiles
from rlaif_ray.labels import trailing_beta

CLOSED, OPEN, NO_PRICE, ALONE, NO_SYMBOL, NO_FORECAST, NO_USUAL, NO_MOMENT = range(8)
VOID = (
    "", "its horizon ends beyond the data", "it had no price when the opinion was given", "fewer than two names had a return",
    "its symbol is not in the market data", "it says neither a probability between 0 and 1 nor quantiles that rise",
    "what was usual was not known yet when the opinion was given", "it was given between two decision moments",
)  # fmt: skip
WIDEST_BETA = 3.0


@dataclass(frozen=True)
class OutcomeTerms:
    """On which terms opinions are judged; the same for all that are compared."""

    cost_per_side: float  # fraction of the notional paid on each of the two fills of the implied position
    beta_bars: int = 252  # window of the beta, which is 1 until it is full; kept within 0 and 3
    volatility_bars: int = 63  # window of the residual volatility that scales P&L and barriers
    barrier: float = 1.0  # distance of both barriers, in volatilities of the horizon
    sectors: Mapping[str, str] = field(default_factory=dict)  # by symbol; who is not in it is held against the universe alone


@dataclass(frozen=True, eq=False)
class Yardstick:
    """For every row of a cube (T) and symbol (A): how an opinion given there over `horizon_bars` would be judged."""

    horizon_bars: int
    terms: OutcomeTerms
    residual: np.ndarray  # (T,A) simple return over the horizon less beta x the universe's and the sector's part; NaN where not closed
    climatology: np.ndarray  # (T,A) p_up from the symbol's outcomes closed by the row
    volatility: np.ndarray  # (T,A) of the residual over the horizon, known at the row; NaN where not known, or nothing moved
    drawdown: np.ndarray  # (2,T,A) on the way, of a short and of a long position
    barrier: np.ndarray  # (T,A) +1, -1 or 0, of a long position; a short one's is its negative
    void: np.ndarray  # (T,A) int8: why there is no residual, an index into `VOID`; 1: not yet
    _usual: dict[tuple[float, ...], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, cube: Cube, horizon_bars: int, terms: OutcomeTerms) -> Yardstick:
        """One pass over the bars of every row's horizon.

        A position is opened and closed at closes, rows t and t + `horizon_bars`. Its residual return is its total return
        less beta (known at t) times the equal-weight return of what could be traded at t, less the mean of that of the
        other members of its sector. Who is halted keeps its last price, who is delisted what the simulator leaves. What is
        sold short, the hedge too, costs no borrow here.
        """
        beta, volatility = _known_at(cube, terms)
        scale = volatility * np.sqrt(horizon_bars)
        priced = np.isfinite(cube.close) & ~np.logical_or.accumulate(cube.delisted, axis=0)
        members = priced & cube.tradable
        residual, drawdown, barrier = _ways(
            _returns_held(cube.close, cube.splits, cube.dividends, cube.delisted, DELISTING_RECOVERY),
            beta, scale, priced, members, _sector_codes(cube.symbols, terms.sectors), horizon_bars, terms.barrier,
        )  # fmt: skip
        still_open = (np.arange(len(priced)) + horizon_bars >= len(priced))[:, None]
        void = np.select([~priced, np.isfinite(residual), still_open], [NO_PRICE, CLOSED, OPEN], ALONE).astype(np.int8)
        return cls(horizon_bars, terms, residual, climatological(residual, horizon_bars), scale, drawdown, barrier, void)

    def usual(self, levels: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
        """(T,A,Q) climatological quantiles at each row, and (T,A) their spread in deviations of a normal; made when first asked for.

        NaN where the volatility is not known.
        """
        if levels not in self._usual:
            quantiles = climatological_quantiles(self.residual, self.horizon_bars, self.volatility, (*levels, *EIGHTIES))
            spread = (quantiles[:, :, -1] - quantiles[:, :, -2]) / NORMAL_EIGHTY
            self._usual[levels] = np.ascontiguousarray(quantiles[:, :, :-2]), spread
        return self._usual[levels]


def _known_at(cube: Cube, terms: OutcomeTerms) -> tuple[np.ndarray, np.ndarray]:
    """(T,A) trailing beta on the equal-weight universe, 1 where it is not known, and the residual volatility a bar, known at each row.

    Betas are kept within [0, 3]: what lies beyond is a window of few or odd bars. The volatility is the root mean square
    of returns less the beta known a bar before times the universe's; NaN with under half of its window.
    """
    returns = total_returns(cube)
    members = cube.tradable & np.isfinite(returns)
    count = members.sum(axis=1)
    market = np.where(count > 0, np.where(members, returns, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)
    beta = trailing_beta(returns, market, terms.beta_bars)
    beta = np.clip(np.where(np.isfinite(beta), beta, 1.0), 0.0, WIDEST_BETA)
    before = np.vstack([beta[:1], beta[:-1]])
    return beta, _root_mean((returns - before * market[:, None]) ** 2, terms.volatility_bars)


def _sector_codes(symbols: tuple[str, ...], sectors: Mapping[str, str]) -> np.ndarray:
    """(A,) int64 number of each symbol's sector; -1 where it has none."""
    numbers = {name: i for i, name in enumerate(sorted({sectors[s] for s in symbols if sectors.get(s)}))}
    return np.array([numbers.get(sectors.get(s, ""), -1) for s in symbols], np.int64)


_F2, _B2 = (types.Array(kind, 2, "C", readonly=True) for kind in (float64, boolean))
_ANY, _I1 = types.Array(float64, 2, "A", readonly=True), types.Array(int64, 1, "C", readonly=True)
_OUT2, _OUT3 = float64[:, ::1], float64[:, :, ::1]


@njit(_OUT2(_ANY, _ANY, _ANY, types.Array(boolean, 2, "A", readonly=True), float64), cache=True, error_model="numpy")
def _returns_held(close, splits, dividends, delisted, recovery):  # pragma: no cover
    """(T,A) simple total returns of a holder, NaN before the first price. A halt leaves the last price standing; who is
    delisted is paid `recovery` of it, and nothing moves after. The simulator's account does the same."""
    t_all, assets = close.shape
    out = np.full((t_all, assets), np.nan)
    for a in range(assets):
        last, gone = np.nan, False
        for t in range(t_all):
            if gone:
                out[t, a] = 0.0
                continue
            paid = splits[t, a] * dividends[t, a] / last
            if delisted[t, a]:
                gone = True
                out[t, a] = recovery - 1.0 + paid
            elif np.isfinite(close[t, a]):
                out[t, a] = splits[t, a] * (close[t, a] + dividends[t, a]) / last - 1.0
                last = close[t, a]
            else:
                out[t, a] = paid
                last = last / splits[t, a]
    return out


@njit(_OUT2(_F2, int64), cache=True)
def _root_mean(squares, window):  # pragma: no cover
    """(T,A) root of the mean of what is there of each window, summed by itself; NaN with under half of it, or where it is 0."""
    t_all, assets = squares.shape
    out = np.full((t_all, assets), np.nan)
    for t in range(t_all):
        total, count = np.zeros(assets), np.zeros(assets, np.int64)
        for k in range(max(0, t - window + 1), t + 1):
            for a in range(assets):
                if np.isfinite(squares[k, a]):
                    total[a] += squares[k, a]
                    count[a] += 1
        for a in range(assets):
            if 2 * count[a] >= window and total[a] > 0.0:
                out[t, a] = np.sqrt(total[a] / count[a])
    return out


@njit(types.Tuple((_OUT2, _OUT3, _OUT2))(_F2, _F2, _F2, _B2, _B2, _I1, int64, float64), cache=True)
def _ways(returns, beta, volatility, priced, members, sectors, horizon, barrier):  # pragma: no cover
    """Residual (T,A), drawdown (2,T,A) and barrier (T,A) of positions opened at each row; NaN where there is none.

    Each row walks its own horizon, so that its figures depend on those bars alone, to the last bit.
    """
    t_all, assets = returns.shape
    residual, drawdown, touched = np.full((t_all, assets), np.nan), np.full((2, t_all, assets), np.nan), np.full((t_all, assets), np.nan)
    n_sectors = max(sectors.max() + 1, 0) if assets > 0 else 0
    of_sector, in_sector = np.zeros(n_sectors), np.zeros(n_sectors, np.int64)
    growth, left, high, low = np.empty(assets), np.empty(assets), np.empty(assets), np.empty(assets)
    for t in range(t_all - horizon):
        growth[:], high[:], low[:] = 1.0, 0.0, 0.0
        alone = False
        for step in range(1, horizon + 1):
            total, count = 0.0, 0
            for a in range(assets):
                growth[a] *= 1.0 + returns[t + step, a]
                if members[t, a] and np.isfinite(growth[a]):
                    total += growth[a] - 1.0
                    count += 1
            if count < 2:
                alone = True
                break
            market = total / count
            of_sector[:], in_sector[:] = 0.0, 0
            for a in range(assets):
                left[a] = growth[a] - 1.0 - beta[t, a] * market if priced[t, a] else np.nan
                if sectors[a] >= 0 and np.isfinite(left[a]):
                    of_sector[sectors[a]] += left[a]
                    in_sector[sectors[a]] += 1
            for a in range(assets):
                value = left[a]
                if not np.isfinite(value):
                    continue
                if sectors[a] >= 0 and in_sector[sectors[a]] > 1:
                    value -= (of_sector[sectors[a]] - value) / (in_sector[sectors[a]] - 1)
                if step == 1:
                    drawdown[0, t, a], drawdown[1, t, a], touched[t, a] = 0.0, 0.0, 0.0 if volatility[t, a] > 0.0 else np.nan
                high[a], low[a] = max(high[a], value), min(low[a], value)
                drawdown[0, t, a] = max(drawdown[0, t, a], value - low[a])
                drawdown[1, t, a] = max(drawdown[1, t, a], high[a] - value)
                if touched[t, a] == 0.0 and abs(value) >= barrier * volatility[t, a]:
                    touched[t, a] = 1.0 if value > 0.0 else -1.0
                residual[t, a] = value
        if alone:
            residual[t], drawdown[:, t], touched[t] = np.nan, np.nan, np.nan
    return residual, drawdown, touched
