"""Episodes and records of all folds -> the one dictionary that is `result.json`.

Only what follows from config, data content and seed goes in; times, hosts, paths and table versions do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from rlaif_ray.backtest import metrics
from rlaif_ray.backtest.comparison import Standing, standings
from rlaif_ray.backtest.engine import concatenate
from rlaif_ray.backtest.observations import constant
from rlaif_ray.backtest.power import TWO_SIDED, detectable
from rlaif_ray.backtest.significance import MIN_BARS, edge, log_excess
from rlaif_ray.core import Abstention, Cube, Episode, ForecastTable, Opinion, OpinionTable, Trip
from rlaif_ray.data.cube import Dataset
from rlaif_ray.errors import DataError
from rlaif_ray.execution.caps import effective_cap
from rlaif_ray.execution.terms import Terms
from rlaif_ray.feedback.evidence import track_records
from rlaif_ray.feedback.outcomes import close
from rlaif_ray.feedback.yardstick import OutcomeTerms
from rlaif_ray.folds import Fold, Window
from rlaif_ray.forecast import NAMES
from rlaif_ray.forecast.scores import calibration, losses
from rlaif_ray.portfolio.limits import Limits
from rlaif_ray.runs import seed_for

BENCHMARK = "equal_weight"
CURVE_POINTS = 500
QUALITY = ("gaps_filled", "gaps_left", "halts", "outliers", "duplicates_dropped", "violations", "ends_early", "quarantined")


def policy_results(
    episodes: Mapping[str, Sequence[Episode]], *, held_by: str, bars_per_year: float, resamples: int, seed: int
) -> dict[str, Any]:  # fmt: skip
    """Metrics and edges of each policy over its stitched test blocks, and thinned curves.

    Parameters
    ----------
    episodes : by policy, its test episodes in fold order.
    held_by : the policy whose weights are drawn.
    """
    whole = {name: concatenate(parts) for name, parts in episodes.items()}
    benchmark = whole[BENCHMARK]
    policies, edges = {}, {}
    for name, episode in whole.items():
        drawn = seed_for(seed, f"bootstrap/{name}")
        row: dict[str, Any] = metrics.summary(episode, benchmark, bars_per_year=bars_per_year, resamples=resamples, seed=drawn)
        claim = edge(episode.returns, benchmark.returns, resamples=resamples, seed=drawn)
        row["excess_annual_log_return"] = {k: v * bars_per_year for k, v in row["excess_log_return"].items()}
        row["invested"] = {"value": float(np.abs(episode.weights).sum(axis=1).mean()), "low": None, "high": None}
        policies[name] = row
        seen = _detectable(episode, benchmark, bars_per_year)
        edges[name] = {"value": claim.value, "low": claim.low, "high": claim.high, "claim": claim.claim, **seen}
    shown = np.unique(np.linspace(0, len(benchmark.times) - 1, num=min(CURVE_POINTS, len(benchmark.times))).astype(int))
    held = whole[held_by]
    return {
        "policies": policies,
        "edges": edges,
        "trips": {name: tripped(episode) for name, episode in whole.items()},
        "test": {"from": _day(benchmark.times[0]), "to": _day(benchmark.times[-1]), "bars": len(benchmark.times)},
        "curves": {
            "times": [_day(t) for t in benchmark.times[shown]],
            "equity": {name: episode.equity[shown] for name, episode in whole.items()},
            "weights": {"symbols": list(held.symbols), "values": held.weights[shown]},
        },
    }


def tripped(episode: Episode) -> dict[str, Any]:
    """By risk control: how often it began to bind, on which days first and last, the largest reading and the limit."""
    by_control: dict[str, list[Trip]] = {}
    for trip in episode.trips:
        by_control.setdefault(trip.control, []).append(trip)
    return {
        control: {
            "count": len(trips), "first": _day(trips[0].at), "last": _day(trips[-1].at), "largest": max(t.reading for t in trips),
            "limit": trips[0].limit,
        }
        for control, trips in by_control.items()
    }  # fmt: skip


def _detectable(episode: Episode, benchmark: Episode, bars_per_year: float) -> dict[str, float | None]:
    """What these bars are worth, and the excess a year that a claim on them would find four times in five."""
    excess = log_excess(episode.returns, benchmark.returns)
    if len(excess) < MIN_BARS or constant(excess[:, None])[0]:
        return {"n_effective": None, "detectable_annual": None}
    found = detectable(excess, bars_per_year=bars_per_year, hurdle=TWO_SIDED)
    return {"n_effective": found.n_effective, "detectable_annual": found.annual_excess}


def fold_result(fold: Fold, cube: Cube, episodes: Mapping[str, Episode], *, seed: int) -> dict[str, Any]:
    """Dates of a fold's blocks and each policy's point figures on its test block."""
    figures = {}
    for name, episode in episodes.items():
        row = metrics.summary(episode, episodes[BENCHMARK], bars_per_year=cube.bars_per_year, resamples=1, seed=seed)
        figures[name] = {k: row[k]["value"] for k in ("total_return", "sharpe", "max_drawdown", "excess_log_return")}
    return {
        "name": fold.name,
        "train": _span(cube, slice(fold.block_a.start, fold.train_rows.stop)),
        "validation": _span(cube, fold.validation.rows),
        "test": _span(cube, fold.last.rows),
        "policies": figures,
    }


def forecast_results(
    tables: Sequence[Mapping[str, ForecastTable]], windows: Sequence[Window], cube: Cube, *, seed: int
) -> dict[str, Any]:  # fmt: skip
    """Calibration of each forecaster over the test blocks of all folds together, and how those of one target compare.

    The plainest of a target comes first: it is what the others are held against.
    """
    names = sorted(tables[0], key=NAMES.index)
    whole = {name: _joined([_on_rows(fold[name], cube, w.rows) for fold, w in zip(tables, windows, strict=True)]) for name in names}
    out = {name: {"target": table.target, "horizons": calibration(table, cube)} for name, table in whole.items()}
    for target in sorted({table.target for table in whole.values()}):
        rivals = {name: losses(table, cube) for name, table in whole.items() if table.target == target}
        for j, horizon in enumerate(next(iter(whole.values())).horizons):
            for name, said in _standings({n: x[:, :, j] for n, x in rivals.items()}, horizon, seed).items():
                g = said.gap
                out[name]["horizons"][str(horizon)] |= {
                    "loss_over_first": None if g is None else {"value": g.mean, "low": g.low, "high": g.high, "p_value": g.p_value},
                    "may_be_best": said.may_be_best, "may_be_best_p_value": said.p_value,
                }  # fmt: skip
    return out


def _standings(rivals: Mapping[str, np.ndarray], horizon: int, seed: int) -> dict[str, Standing]:
    """Nothing where there is nobody to compare with, or too few bars to do it."""
    if len(rivals) < 2:
        return {}
    try:
        return standings(rivals, horizon=horizon, seed=seed_for(seed, f"standings/{horizon}", bits=32))
    except DataError:
        return {}


def _joined(parts: Sequence[ForecastTable]) -> ForecastTable:
    first = parts[0]
    return ForecastTable(
        np.concatenate([p.as_of for p in parts]), first.target, first.symbols, first.horizons, first.levels,
        np.concatenate([p.values for p in parts]), first.model,
    )  # fmt: skip


def _on_rows(table: ForecastTable, cube: Cube, rows: slice) -> ForecastTable:
    keep = np.isin(table.as_of, cube.known_at[rows])
    return ForecastTable(table.as_of[keep], table.target, table.symbols, table.horizons, table.levels, table.values[keep], table.model)


def _span(cube: Cube, rows: slice) -> list[str]:
    return [_day(cube.times[int(row)]) for row in (rows.start, min(rows.stop, len(cube.times)) - 1)]


def _day(moment: np.datetime64) -> str:
    return str(moment.astype("datetime64[D]"))


def data_result(cube: Cube, dataset: Dataset, quality: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the run was made from; the quality counts are summed over symbols."""
    counts = {key: sum(int(report.get(key) or 0) for report in quality.values()) for key in QUALITY}
    return {
        "dataset": dataset.lake.dataset, "symbols": list(cube.symbols), "rows": int(np.isfinite(cube.close).sum()), "bars": len(cube.times),
        "first": _day(cube.times[0]), "last": _day(cube.times[-1]), "data_version": dataset.data_version, "price_kind": dataset.price_kind,
        "bars_per_year": cube.bars_per_year, "absent_features": list(dataset.absent), "quality": counts,
    }  # fmt: skip


def desk_result(
    cube: Cube, spoken: Sequence[Opinion | Abstention], analysts: OpinionTable, managers: Sequence[OpinionTable],
    windows: Sequence[Window], *, terms: OutcomeTerms, resamples: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Record of every analyst and of the manager over the test blocks of all folds together.

    Parameters
    ----------
    spoken : the desk's opinions one by one, for the reasons of those who abstained.
    analysts : the same in bulk.
    managers : the manager's table of each fold, one row a decision row; its word counts when the desk spoke.
    """
    manager = np.full((*analysts.p_up.shape[:2], 1), np.nan)
    for verdicts, window in zip(managers, windows, strict=True):
        heard = np.isin(analysts.as_of, cube.known_at[window.rows])
        manager[heard] = verdicts.p_up[np.isin(verdicts.as_of, analysts.as_of[heard])]
    p_up = np.concatenate([analysts.p_up, manager], axis=-1)
    table = OpinionTable(analysts.as_of, analysts.symbols, (*analysts.authors, *managers[0].authors), p_up, analysts.horizon_bars)
    rows = slice(windows[0].rows.start, windows[-1].rows.stop)
    records = track_records(close(table, cube, terms), p_up, rows, resamples=resamples, seed=seed)
    reasons = {o.author: o.reason for o in reversed(spoken) if isinstance(o, Abstention)}
    return {author: {**record, "reason": reasons.get(author)} for author, record in records.items()}


def execution_result(terms: Terms, assets: int) -> dict[str, Any]:
    """On which terms everybody traded; of the rules that have the last word, those that are on."""
    costs, account, off = terms.costs, terms.account, Limits()
    limits = {name: value for name, value in asdict(terms.limits).items() if value != getattr(off, name)}
    return {
        "fill": terms.fill, "cash_usd": terms.cash_usd, "max_weight": effective_cap(terms.limits.max_weight, assets), "limits": limits,
        "costs_bps": {name: 1e4 * getattr(costs, name) for name in ("commission", "half_spread", "slippage")},
        "impact": {name: getattr(costs, name) for name in ("impact", "temporary", "permanent")}, "borrow_bps_a_day": 1e4 * costs.borrow,
        "account": {**asdict(account), "participation": account.participation if account.participation < np.inf else None},
    }  # fmt: skip


def notes(
    cube: Cube, *, source: str, terms: Terms, analysts: Mapping[str, Mapping[str, Any]], trained_until: str | None
) -> list[str]:  # fmt: skip
    """What a reader must know before believing any number, one sentence each."""
    said = []
    if cube.price_kind == "vendor_adjusted":
        said.append("Prices were adjusted by their vendor after the fact: not point in time; their levels are not what could be traded.")
    if cube.price_kind == "split_adjusted":
        said.append("Prices were adjusted for splits by their source; dividends are paid in the simulator where the source lists them.")
    if source != "synthetic":
        said.append(
            "The names are those that the source was given: if they were chosen with hindsight, every policy here is flattered alike."
        )
    if terms.fill == "next_close":
        said.append(
            "Decisions fill at the next close, as execution.fill asks."
            if cube.has_opens
            else "The source has no opens: decisions fill at the next close."
        )
    if not terms.costs.needs_volume:
        said.append("No market impact is charged: the source has no volumes, or --execution.costs.impact is 0.")
    if (least := effective_cap(cap := terms.limits.max_weight, len(cube.symbols))) > cap:
        said.append(f"A cap of {cap:.1%} on one name cannot be met by {len(cube.symbols)} names; it is {least:.1%} here.")
    if (most := terms.account.participation) < np.inf:
        said.append(
            f"A fill takes at most {100 * most:.3g}% of its bar's volume, and what is cut is cancelled: buy-and-hold, which asks once, "
            "goes without it."
        )
    silent = [name for name, record in analysts.items() if not record["n_opinions"]]
    if silent:
        said.append(f"Abstained throughout, for lack of data: {', '.join(silent)}.")
    if trained_until is not None and np.datetime64(trained_until) >= cube.times[0]:
        said.append(f"CONTAMINATED: pretrained weights may have seen the world up to {trained_until}; results before that prove nothing.")
    return said
