"""Outcomes of opinions, against a reference in pandas that judges one opinion after the other: `python -m benchmarks.feedback`."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.rows import Row, in_turn, main
from rlaif_ray.backtest.canaries import noise_market
from rlaif_ray.core import Cube
from rlaif_ray.data.events import total_returns
from rlaif_ray.feedback.outcomes import FIGURES, judge_records
from rlaif_ray.feedback.scoring import PRIOR
from rlaif_ray.feedback.yardstick import OutcomeTerms, Yardstick

HORIZONS = (1, 5, 20, 60)
TERMS = OutcomeTerms(cost_per_side=0.0007)


def rows(quick: bool) -> list[Row]:
    """Opinions over four horizons on a hundred names, judged in all their fields."""
    return [outcomes(quick)]


def outcomes(quick: bool) -> Row:
    """From bars and records to a table of outcomes; the reference judges a sample, and its time is taken for all of them."""
    bars, sample = (500, 100) if quick else (2500, 400)
    cube = _market(bars, 100)
    records = _records(cube)
    n = len(records)

    def ours() -> pa.Table:
        return judge_records(records, cube.known_at, cube.symbols, {h: Yardstick.of(cube, h, TERMS) for h in HORIZONS})

    judged = ours().to_pandas()
    said = records.to_pandas().set_index(["as_of", "symbol", "horizon_bars"])
    keys = ["opened_at", "symbol", "horizon_bars"]
    chosen = judged[judged["void"] == ""].sample(sample, random_state=0)
    asked = chosen[keys].assign(p_up=said.loc[list(chosen[keys].itertuples(index=False, name=None)), "p_up"].to_numpy())
    start = time.process_time()
    reference = RowByRow(cube)
    preparing = time.process_time() - start

    def peer() -> pd.DataFrame:
        return asked.apply(reference.judge, axis=1)

    found = peer()[list(FIGURES)].to_numpy(float)
    apart = np.abs(found - chosen[list(FIGURES)].to_numpy(float))
    assert (np.isnan(found) == np.isnan(apart)).all() and np.nanmax(apart) < 1e-8, f"outcomes differ by {np.nanmax(apart)}"
    seconds, sample_seconds = in_turn(ours, peer)
    peer_seconds = preparing + sample_seconds * n / sample
    note = (
        f"{n:,} opinions, horizons {', '.join(map(str, HORIZONS))}; ours {seconds:.2f} s, from bars and records on. The reference judges "
        f"{sample} of them ({1000 * sample_seconds / sample:.2f} ms each), extrapolated; its betas, volatilities and residuals of the "
        f"past are made at once ({preparing:.2f} s). All {len(FIGURES)} fields compared first, largest difference {np.nanmax(apart):.0e}."
    )
    peer_name = "pandas, row by row"
    return Row(f"outcomes of {n:,} opinions", n / seconds, peer_name, n / peer_seconds, peer_seconds / seconds, "opinions/s", 50, note)


class RowByRow:
    """The rules of `Yardstick` and `judge_records` once more, as one would write them in pandas for one opinion."""

    def __init__(self, cube: Cube) -> None:
        names = list(cube.symbols)
        frame: Any = pd.DataFrame(total_returns(cube), columns=names)
        tradable: Any = pd.DataFrame(cube.tradable, columns=names)
        gone = pd.DataFrame(cube.delisted, columns=names)
        market = frame.where(tradable).mean(axis=1)
        half = {"window": TERMS.beta_bars, "min_periods": TERMS.beta_bars // 2}
        beta: Any = frame.rolling(**half).cov(market).div(market.rolling(**half).var(), axis=0)
        beta.iloc[: TERMS.beta_bars - 1] = np.nan
        self.beta: Any = beta.fillna(1.0).clip(0.0, 3.0)
        left = frame.sub(self.beta.shift(1).mul(market, axis=0))
        self.volatility: Any = (left**2).rolling(TERMS.volatility_bars, min_periods=(TERMS.volatility_bars + 1) // 2).mean() ** 0.5
        self.held: Any = frame.mask(gone, 0.0).mask(gone & ~gone.shift(1, fill_value=False), -0.3)
        self.members: Any = tradable & ~gone
        self.row_of = pd.Series(np.arange(len(cube.known_at)), index=pd.DatetimeIndex(cube.known_at))
        self.residual = {h: self._residuals(h) for h in HORIZONS}

    def _residuals(self, horizon: int) -> Any:
        growth = (1.0 + self.held).rolling(horizon).apply(np.prod, raw=True).shift(-horizon) - 1.0
        return growth.sub(self.beta.mul(growth.where(self.members).mean(axis=1), axis=0))

    def judge(self, o: Any) -> pd.Series:
        """One opinion: its score, and the way of its position."""
        t, h = self.row_of[o["opened_at"]], o["horizon_bars"]
        growth = (1.0 + self.held.iloc[t + 1 : t + h + 1]).cumprod() - 1.0
        market = growth.loc[:, self.members.iloc[t]].mean(axis=1)
        way = growth[o["symbol"]] - self.beta[o["symbol"]].iloc[t] * market
        past = self.residual[h][o["symbol"]].iloc[: max(t - h + 1, 0)].dropna()
        usual = ((past > 0).sum() / h + PRIOR) / (len(past) / h + 2 * PRIOR)
        score = np.log(o["p_up"] / usual) if way.iloc[-1] > 0 else np.log((1 - o["p_up"]) / (1 - usual))
        side = np.sign(o["p_up"] - 0.5)
        value = side * way
        drawdown = (value.cummax().clip(lower=0.0) - value).max()
        scale = self.volatility[o["symbol"]].iloc[t] * np.sqrt(h)
        touched = value[value.abs() >= scale * TERMS.barrier]
        barrier = np.nan if np.isnan(scale) else np.sign(touched.iloc[0]) if len(touched) else 0.0
        cost = 2 * TERMS.cost_per_side if side else 0.0
        net = value.iloc[-1] - cost
        return pd.Series([score, value.iloc[-1], cost, net, net / scale, max(drawdown, 0.0), barrier], index=FIGURES)


def _market(bars: int, assets: int) -> Cube:
    """Random walks with splits, dividends, halts and delistings."""
    times = np.datetime64("2000-01-03T21:00", "us") + np.timedelta64(1, "D") * np.arange(bars)
    market = noise_market(np.random.default_rng(0), bars, assets)
    features = np.zeros((bars, assets, 0), np.float32)
    return Cube(
        times, times.copy(), tuple(f"S{i:03d}" for i in range(assets)), market["prices"], features, (), market["tradable"],
        market["splits"], market["dividends"], market["delisted"], 252.0,
    )  # fmt: skip


def _records(cube: Cube) -> pa.Table:
    """One opinion on each row, symbol and horizon."""
    t, a = len(cube.times), len(cube.symbols)
    row, asset, horizon = (x.reshape(-1) for x in np.indices((t, a, len(HORIZONS))))
    n = len(row)
    return pa.table({
        "as_of": pa.array(cube.known_at[row]), "symbol": np.array(cube.symbols)[asset],
        "author": np.array([f"over {h}" for h in HORIZONS])[horizon],
        "round": pa.array(np.zeros(n), pa.int32()), "sample": pa.array(np.zeros(n), pa.int32()),
        "horizon_bars": pa.array(np.array(HORIZONS)[horizon], pa.int32()), "prompt_hash": [f"{i:016x}" for i in range(n)],
        "p_up": np.random.default_rng(1).uniform(0.35, 0.65, n), "quantiles": pa.nulls(n, pa.string()),
    })  # fmt: skip


if __name__ == "__main__":
    main(rows)
