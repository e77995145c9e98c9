"""A finished run before the gate: each of its policies told again under stress, asked whether it looks ahead, and judged.

Reads the run's artefacts and the ledger; leaves `verdict.json` and `validation.html` in the run. No trial is
made: what is judged has been tried already. Only the cross-validation that may be asked for fits anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import ray

from rlaif_ray import artefacts, ray_runtime
from rlaif_ray.artefacts import FoldModels
from rlaif_ray.backtest import stress
from rlaif_ray.backtest.canaries import looks_ahead
from rlaif_ray.backtest.cross_validation_on_ray import cross_validate
from rlaif_ray.backtest.engine import as_weights, concatenate, controls_of, decide
from rlaif_ray.backtest.episodes import read_episode
from rlaif_ray.backtest.gate import LADDER_BPS, Case, Verdict, judge
from rlaif_ray.backtest.on_ray import STRONG, read_targets, walked_policies
from rlaif_ray.backtest.significance import log_growth
from rlaif_ray.core import Cube, Episode, canonical_json
from rlaif_ray.data.cube import Dataset
from rlaif_ray.data.events import total_returns
from rlaif_ray.data.universe import Membership
from rlaif_ray.errors import ConfigError, DataError, MissingDataError
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Market
from rlaif_ray.execution.terms import Terms
from rlaif_ray.gate_report import render
from rlaif_ray.ledger import TrialLedger, Tried
from rlaif_ray.plan import cut_folds, terms_of
from rlaif_ray.policies import LEARNERS
from rlaif_ray.results import BENCHMARK
from rlaif_ray.runs import Run, seed_for, write_atomically
from rlaif_ray.serve.predictor import Predictor

CANARY_ROWS = 3  # decisions of a fold, evenly spaced, that are taken again with noise for a future; and each policy's largest trade
DRAWS = 20  # markets in which other names die; the excess is their mean
SAME = 1e-12  # log returns that differ by no more are the same


@dataclass(frozen=True, eq=False)
class Walk:
    """What one policy decided on one test block, and what came of it."""

    rows: slice
    episode: Episode
    targets: np.ndarray  # (T,A)


def validate(
    run_dir: str | Path, *, membership: str | None = None, cross_validated: bool = False
) -> tuple[Run, dict[str, Verdict]]:  # fmt: skip
    """The verdict on every policy of a finished run but equal weight.

    Parameters
    ----------
    membership : CSV of an index's members (ticker, start_date, end_date); None: the stress on members alone does not apply.
    cross_validated : show what the optimiser's combinatorial purged cross-validation makes of the same span; minutes.

    Raises `ConfigError` where the file cannot be read, `MissingDataError` or `CheckpointError` for a run that did not
    finish, `DataError` where its bars are too few to carry a verdict.
    """
    run = Run.open(run_dir, "pipeline")
    return run, _validate(run, _membership(membership), cross_validated)


def _validate(run: Run, members: Membership | None, cross_validated: bool) -> dict[str, Verdict]:
    dataset, result = artefacts.load_dataset(run.path), run.read_result()
    ledger = TrialLedger(run.config.lake.uri)
    said = _said(run)
    ledger.verify(said["ledger"])
    cube, models = dataset.cube(), artefacts.load_all(run.path)
    walks = {m.fold: _walks(run.path, m) for m in models if m.fold != artefacts.LIVE}
    terms = terms_of(run.config, cube, dataset.sectors)
    stressed = _stressed(cube, terms, walks, members, seed=seed_for(run.config.seed, "gate"))
    leaks = _leaks(run, walks)
    whole = {name: concatenate([w[name].episode for w in walks.values()]) for name in next(iter(walks.values()))}
    # Who did nothing but what equal weight did (a cap of 1/A leaves no choice) is equal weight, and is not judged against itself.
    names = [name for name, episode in whole.items() if np.ptp(episode.returns - whole[BENCHMARK].returns) > SAME]
    tried = ledger.returns(dataset.data_version, whole[BENCHMARK].times)
    states = stress.regimes(_market(cube), bars_per_year=cube.bars_per_year)
    regimes = np.concatenate([states[w[BENCHMARK].rows] for w in walks.values()])
    strong = f"{STRONG}_optimiser"
    unopposed = None if strong in names else f"no {strong} was walked; run again with {STRONG!r} among --forecast.models"
    verdicts = {}
    for name in names:
        # Pretrained weights and chance have a part in the learned policy alone: the trees start from nothing, seeded once.
        learned: dict[str, Any] = {}
        if name in LEARNERS:
            learned = {"seeds": _seeds(tried, run.config.family), "contaminated": _contaminated(run, whole[BENCHMARK].times[0])}
        case = Case(
            name, cube.bars_per_year, **_searched(tried, whole, name), regimes=regimes, **stressed[name], leak=leaks.get(name),
            unopposed=unopposed, **learned,
        )  # fmt: skip
        verdicts[name] = judge(case, seed=seed_for(run.config.seed, f"gate/{name}", bits=32))
    paths = _paths(run, cube, terms, walks) if cross_validated else {}
    policies = {name: {**asdict(v), "verdict": v.word} for name, v in verdicts.items()}
    write_atomically(run.path / "verdict.json", canonical_json({**said, "policies": policies, "paths": paths}))
    render(result, verdicts, run.path / "validation.html", paths=paths)
    return verdicts


def _said(run: Run) -> dict[str, Any]:
    """The verdict that the pipeline left, which says where the ledger stood."""
    file = run.path / "verdict.json"
    if not file.is_file():
        raise MissingDataError(f"run {run.path} has no verdict.json: it did not finish; go on with rlaif pipeline --resume {run.path}")
    return json.loads(file.read_text())


def _contaminated(run: Run, tested_from: np.datetime64) -> str | None:
    """Whether pretrained weights of the run may know bars that were tested."""
    ttm = run.config.forecast.ttm
    if "ttm" not in run.config.forecast.models or ttm.trained_until is None or np.datetime64(ttm.trained_until) < tested_from:
        return None
    return f"ttm may know the world up to {ttm.trained_until}, and was tested from {str(tested_from)[:10]} on"


def _paths(run: Run, cube: Cube, terms: Terms, walks: Mapping[str, Mapping[str, Walk]]) -> dict[str, np.ndarray]:
    """(P,) annual Sharpe ratios of the optimiser on each path, and of its log excess over equal weight.

    The span ends where the last test block does: no bar of a closed vault is read.
    """
    if STRONG not in (models := run.config.forecast.models):
        raise ConfigError(f"--cross-validate needs {STRONG!r} among the run's --forecast.models; seen {', '.join(models)}")
    first = cut_folds(run.config, cube)[0].block_a.start
    last = max(w[BENCHMARK].rows.stop for w in walks.values())
    found = cross_validate(
        ray.put(cube), slice(first, last), run.config.forecast, embargo=run.config.backtest.embargo_bars, terms=terms,
        seed=seed_for(run.config.seed, "gate/paths"),
    )  # fmt: skip
    excess = log_growth(found.optimiser) - log_growth(found.equal_weight)
    year = np.sqrt(cube.bars_per_year)
    return {
        "its return": year * found.optimiser.mean(axis=1) / found.optimiser.std(axis=1, ddof=1),
        "excess over equal weight": year * excess.mean(axis=1) / excess.std(axis=1, ddof=1),
    }


def _market(cube: Cube) -> np.ndarray:
    """(T,) mean simple total return of the names that have one; 0 before any has."""
    returns = total_returns(cube)
    known = np.isfinite(returns)
    return np.where(known, returns, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def _membership(path: str | None) -> Membership | None:
    if path is None:
        return None
    try:
        return Membership.of(pl.read_csv(path))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"--membership {path}: {str(error).splitlines()[0]}; expected a CSV of ticker, start_date, end_date") from None


def _walks(run: Path, models: FoldModels) -> dict[str, Walk]:
    """By policy, what was walked in the test block that these models serve."""
    folder = run / "artefacts" / f"fold={models.fold}" / artefacts.EPISODES
    walks = {}
    for file in sorted(folder.glob("*.npz")):
        episode = read_episode(file)
        rows = slice(models.first_row, models.first_row + len(episode.times))
        walks[file.stem] = Walk(rows, episode, read_targets(file))
    if BENCHMARK not in walks:
        raise MissingDataError(f"{folder} has no episode of {BENCHMARK}; it is not a fold that was tested: run the pipeline again")
    return walks


def _searched(tried: Tried, whole: Mapping[str, Episode], name: str) -> dict[str, Any]:
    """Log excess of everything tried over each benchmark, and where the policy stands among them."""
    rivals = {BENCHMARK: log_growth(tried.benchmark)}
    if (strong := f"{STRONG}_optimiser") in whole and strong != name:
        rivals[strong] = log_growth(whole[strong].returns)[:, None]
    same = np.flatnonzero((tried.net == whole[name].returns[:, None]).all(axis=0))
    if not len(same):
        raise DataError(
            f"the ledger has no trial that returned what {name} did in this run; expected the lake that the run recorded in (lake.uri): "
            f"make the run again on it"
        )
    own = int(same[0])
    over, column = {}, {}
    for rival, returns in rivals.items():
        excess = log_growth(tried.net) - returns
        differs = np.ptp(excess, axis=0) > SAME  # the rival is not tried against himself
        over[rival], column[rival] = excess[:, differs], int(differs[:own].sum())
    return {"tried": over, "column": column, "trials": over[BENCHMARK].shape[1] + tried.left_out}


def _seeds(tried: Tried, family: str) -> dict[int, np.ndarray]:
    """Excess of the learned policy under each seed that this configuration was tried with."""
    same = [k for k, (name, of) in enumerate(zip(tried.names, tried.families, strict=True)) if of == family and not tried.baseline[k]]
    return {tried.seeds[k]: log_growth(tried.net[:, k]) - log_growth(tried.benchmark[:, k]) for k in same}


def _stressed(
    cube: Cube, terms: Terms, walks: Mapping[str, Mapping[str, Walk]], members: Membership | None, *, seed: int
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """By policy: the cost ladder, and the excess over equal weight with both under each stress."""
    market, out = Market.of(cube, terms.fill), {}
    of_equal = {name: [w[name] for w in walks.values()] for name in next(iter(walks.values()))}
    belongs = None if members is None else members.members(cube.symbols, cube.times)
    if belongs is not None and not belongs.any():
        raise ConfigError(f"--membership knows none of the run's symbols, such as {cube.symbols[0]!r}; expected tickers spelled as here")
    dying = [
        [stress.with_delistings(market, w.rows, bars_per_year=cube.bars_per_year, seed=seed + n) for w in of_equal[BENCHMARK]]
        for n in range(DRAWS)
    ]

    def grown(
        blocks: list[Walk], *, terms: Terms = terms, change: Any = None, markets: list[Market] | None = None
    ) -> np.ndarray:  # fmt: skip
        changed = [w.targets if change is None else change(w) for w in blocks]
        parts = zip(markets or [market] * len(blocks), blocks, changed, strict=True)
        return np.concatenate([log_growth(stress.replay(m, w.rows, targets, terms)) for m, w, targets in parts])

    at_cost = {bps: replace(terms, costs=CostModel(slippage=bps / 1e4, borrow=terms.costs.borrow)) for bps in LADDER_BPS}
    for name, blocks in of_equal.items():
        if name == BENCHMARK:
            continue

        def excess(blocks: list[Walk] = blocks, **under: Any) -> np.ndarray:
            return grown(blocks, **under) - grown(of_equal[BENCHMARK], **under)

        out[name] = {
            "ladder": {bps: excess(terms=flat) for bps, flat in at_cost.items()},
            "stressed": {
                "one bar late": excess(change=lambda w: stress.late(w.episode.weights)),
                "delistings": np.mean([excess(markets=each) for each in dying], axis=0),
                "members alone": None if belongs is None else excess(change=lambda w: stress.among(w.targets, belongs[w.rows])),
            },
        }  # fmt: skip
    return out


def _leaks(run: Run, walks: Mapping[str, Mapping[str, Walk]]) -> dict[str, str]:
    """Policies that look ahead, and how that showed; one Ray task a fold."""
    ray_runtime.attach()
    found: dict[str, str] = {}
    for leaks in ray.get([_canaries.remote(str(run.path), fold, dict(walked)) for fold, walked in walks.items()]):
        found = leaks | found
    return found


@ray.remote(num_cpus=1)
def _canaries(run_path: str, fold: str, walked: dict[str, Walk]) -> dict[str, str]:
    """Takes decisions of one fold again with noise for a future, and makes features again from what was known.

    A feature that knew its future taints whoever decided on it: then every policy is named.
    """
    run, dataset = Run.open(run_path), artefacts.load_dataset(Path(run_path))
    cube, models = dataset.cube(), artefacts.load_all(Path(run_path))
    own = next(m for m in models if m.fold == fold)
    rows = walked[BENCHMARK].rows
    spread = np.linspace(rows.start + 1, rows.stop - 1, CANARY_ROWS).astype(int).tolist()
    # The first trade is everyone's largest, and is from cash: the next largest says more of what a policy decides by.
    asked = sorted({*spread, *(rows.start + 1 + int(w.episode.turnover[1:].argmax()) for w in walked.values())})
    terms = terms_of(run.config, cube, dataset.sectors)

    def decided(market: Cube, row: int) -> dict[str, np.ndarray]:
        predictor = Predictor(run.config, dataset, market, models)
        out = {}
        tables = {STRONG: own.forecasters[STRONG].predict(market, [row])} if STRONG in own.forecasters else {}
        controls = controls_of(market, terms, rows.start)
        for policy in walked_policies(market, own.policy, tables, terms):
            own_path, bars = walked[policy.name].episode, row - rows.start
            held = dict(zip(cube.symbols, own_path.weights[bars - 1].tolist(), strict=True))
            view = predictor.view(row, held, own_path.returns[:bars])
            decision = decide(policy, view, controls, terms.account)
            out[policy.name] = as_weights(decision, cube.symbols, terms.account)
        return out

    tainted = next((said for row in asked if (said := moved_feature(dataset, cube, row))), None)
    if tainted is not None:
        return dict.fromkeys(walked, tainted)
    traded = {row: {name: w.targets[row - rows.start] for name, w in walked.items()} for row in asked}
    return looks_ahead(decided, cube, traded, seed=seed_for(run.config.seed, f"canaries/fold={fold}", bits=32))


def moved_feature(dataset: Dataset, cube: Cube, row: int) -> str | None:
    """The first feature at `row` that is not what it is when made from rows known by then alone, in words."""
    anew = dataset.cube_as_of(cube.known_at[row])
    for name in cube.feature_names:
        for a, symbol in enumerate(cube.symbols):
            if symbol in anew.symbols:
                used, known = cube.feature(name)[row, a], anew.feature(name)[-1, anew.symbols.index(symbol)]
                if not np.array_equal(used, known, equal_nan=True):
                    return f"{name} of {symbol} at {cube.times[row]} is {used:.6g}, and {known:.6g} when made from what was known by then"
    return None
