"""One fold's test block, walked by the run's policy and the baselines: one Ray task a fold.

The run's policy sees at each row what a server would hand it: forecasts of that row, the desk's last opinions and the
manager's verdict on them, and its own portfolio.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import ray

from rlaif_ray.agents.analysts import view_at
from rlaif_ray.agents.debate import Weigh, verdicts
from rlaif_ray.backtest import engine
from rlaif_ray.backtest.episodes import write_episode
from rlaif_ray.core import Abstention, Cube, Decision, Forecast, ForecastTable, Opinion, Policy
from rlaif_ray.execution.terms import Terms
from rlaif_ray.strategies import baselines, forecast_optimiser

STRONG = "lightgbm"  # the forecaster whose optimiser is a baseline, where it runs


# Ray's stubs know positional parameters only.
@ray.remote(num_cpus=1)  # pyright: ignore[reportCallIssue, reportArgumentType]
def backtest_fold(
    cube: Cube, rows: slice, policy: Policy | None, tables: Mapping[str, ForecastTable], opinions: Sequence[Opinion | Abstention],
    weigh: Weigh, terms: Terms, *, out_dir: str,
) -> None:  # fmt: skip
    """Walk `rows` with every policy; leave `<policy>.npz` and, of the policy that the run is about, `decisions.json` in `out_dir`.

    Where LightGBM forecasts, its optimiser is among those who are walked.
    `opinions` are the desk's, at or before the rows; `weigh` is the manager's, fitted before them.
    """
    said = Desk(cube, opinions, weigh)
    for each in walked_policies(cube, policy, tables, terms):
        episode, decisions = engine.run(
            each, cube, rows, terms, forecasts_at=lambda t: forecasts_at(tables, cube.known_at[t]), opinions_at=said.at
        )
        targets = np.array([engine.as_weights(d, cube.symbols, terms.account) for d in decisions])
        write_episode(Path(out_dir) / f"{each.name}.npz", episode, targets=targets)
        if each is policy:
            _write_decisions(Path(out_dir) / "decisions.json", decisions)


def walked_policies(cube: Cube, policy: Policy | None, tables: Mapping[str, ForecastTable], terms: Terms) -> list[Policy]:
    """Who is walked through a test block: the run's policy, the rules, and LightGBM's optimiser where it forecasts."""
    walked = [*([policy] if policy else []), *baselines(cube, max_weight=terms.limits.max_weight)]
    if (strong := tables.get(STRONG)) is not None:
        optimiser = forecast_optimiser(cube, strong, cost_per_side=terms.costs.rate, max_weight=terms.limits.max_weight)
        walked += [optimiser] if policy is None or optimiser.name != policy.name else []
    return walked


class Desk:
    """What the desk last said at each row, and what its manager made of it."""

    def __init__(self, cube: Cube, opinions: Sequence[Opinion | Abstention], weigh: Weigh) -> None:
        self._cube, self._weigh = cube, weigh
        self._by_moment: dict[np.datetime64, list[Opinion | Abstention]] = {}
        for opinion in opinions:
            self._by_moment.setdefault(opinion.as_of, []).append(opinion)
        self._moments = np.array(sorted(self._by_moment), "datetime64[us]")
        self._judged: dict[np.datetime64, tuple[Opinion | Abstention, ...]] = {}

    def at(self, row: int) -> tuple[Opinion | Abstention, ...]:
        """Opinions of the last moment at or before the row, the manager's after the analysts', then those of the moment before it."""
        last = int(np.searchsorted(self._moments, self._cube.known_at[row], side="right"))
        return tuple(opinion for moment in self._moments[max(last - 2, 0) : last][::-1] for opinion in self._spoken(moment))

    def _spoken(self, moment: np.datetime64) -> tuple[Opinion | Abstention, ...]:
        if moment not in self._judged:
            spoken = self._by_moment[moment]
            view = view_at(self._cube, self._cube.row(moment))
            self._judged[moment] = (*spoken, *verdicts(view, spoken, self._weigh))
        return self._judged[moment]


def forecasts_at(tables: Mapping[str, ForecastTable], as_of: np.datetime64) -> dict[str, Forecast]:
    return {name: table.at(as_of) for name, table in tables.items()}


def read_targets(path: Path) -> np.ndarray:
    """(T,A) the weights that were decided, after the cap, bar by bar of the episode."""
    with np.load(path) as saved:
        return saved["targets"]


def read_decisions(path: Path) -> list[Decision]:
    return [Decision(np.datetime64(d["as_of"], "us"), d["weights"], d["reason"], d["model"]) for d in json.loads(path.read_text())]


def _write_decisions(path: Path, decisions: Sequence[Decision]) -> None:
    rows = [{"as_of": str(d.as_of), "weights": dict(d.weights), "reason": d.reason, "model": d.model} for d in decisions]
    path.write_text(json.dumps(rows))
