"""The stages in order, and nothing else: each is a call to the room that does it, committed once in the run.

Folds run side by side as Ray tasks that hold no CPU themselves; the tasks, actors and trainers that they start do.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import ray
from ray.exceptions import RayError

from rlaif_ray import artefacts, policies, ray_runtime, results
from rlaif_ray.agents import records
from rlaif_ray.agents.debate import MANAGER
from rlaif_ray.agents.on_ray import opine_table
from rlaif_ray.backtest.episodes import read_episode
from rlaif_ray.backtest.on_ray import backtest_fold
from rlaif_ray.config import Config
from rlaif_ray.core import Abstention, Cube, Episode, ForecastTable, Opinion, OpinionTable, canonical_json, content_hash
from rlaif_ray.data.cube import Dataset
from rlaif_ray.data.stages_on_ray import dataset_of
from rlaif_ray.execution.terms import Terms
from rlaif_ray.feedback.on_ray import judge_fold
from rlaif_ray.feedback.weighing import load_weigher, weigh_with
from rlaif_ray.folds import Fold
from rlaif_ray.forecast.on_ray import forecast_fold, read_tables, write_tables
from rlaif_ray.ledger import Trial, TrialLedger
from rlaif_ray.plan import cut_folds, observed, outcome_terms, terms_of, vault_of
from rlaif_ray.policies import LEARNERS
from rlaif_ray.report import render
from rlaif_ray.rl.on_ray import train
from rlaif_ray.runs import Run, committed, seed_for, write_atomically
from rlaif_ray.serve.predictor import Predictor
from rlaif_ray.vault import open_vault

log = logging.getLogger("rlaif_ray")
MODELS, TABLES = "models", "tables"  # folders of the forecast stage


def run_pipeline(config: Config, run_dir: str | None = None, resume: str | None = None) -> tuple[Run, dict[str, Any]]:
    """Ingest to report, in a new run directory or, with `resume`, going on in one. Returns the run and its result.

    Raises what the stages raise; a `ConfigError` or `DataError` before the first fold leaves no directory behind.
    """
    with Run.resume(resume, "pipeline") if resume is not None else Run.create("pipeline", config, run_dir) as run:
        ray_runtime.attach()
        dataset, ingested = dataset_of(run)
        cube = dataset.cube()
        folds, vault, ledger = cut_folds(run.config, cube), vault_of(run.config, cube), TrialLedger(run.config.lake.uri)
        ledger.verify(_stamped(run).get("ledger"))
        if vault.opened:
            open_vault(vault, run, ledger, dataset.data_version)
        run.settle()
        cube_ref = ray.put(cube)
        opinions = ask_desk(run, cube_ref, cube, folds)
        stages = _all_folds(run, cube_ref, cube, folds, opinions, dataset.sectors)
        terms = terms_of(run.config, cube, dataset.sectors)
        artefacts.keep_dataset(run.path, dataset)
        for fold in folds:
            artefacts.keep(run, fold, cube, dataset, stages[fold.name], models=MODELS, fill=terms.fill)
        result = _result(run, cube, dataset, ingested, folds, opinions, stages)
        ledger.record(_trials(run.config, cube, dataset.data_version, folds, stages))  # first: who has seen the result has tried
        run.write_result(result)
        trials = ledger.count(dataset.data_version)
        seen = {**result["vault"], "openings": ledger.openings(dataset.data_version)}
        verdict = {"edge": result["edges"][result["policy"]], "trials": trials, "vault": seen, "ledger": ledger.verify()}
        write_atomically(run.path / "verdict.json", canonical_json(verdict))
        render(result, run.path / "report.html", trials=trials)
    return run, result


def _stamped(run: Run) -> dict[str, Any]:
    """The verdict of a run that is made again; it says where the ledger stood."""
    file = run.path / "verdict.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def ask_desk(run: Run, cube_ref: Any, cube: Cube, folds: list[Fold]) -> Path:
    """The desk's opinions on every decision row of any fold. The rules are fixed, so one pass serves all folds."""
    section = run.config.agents
    rows = slice(folds[0].windows[0].rows.start, len(cube.times))
    stage = run.stage("opinions", cube.id, section.model_dump(mode="json"), [rows.start, rows.stop])
    return stage.get_or(lambda out: pq.write_table(opine_table(cube_ref, rows, section), out / "opinions.parquet", compression="zstd"))


def _all_folds(
    run: Run, cube_ref: Any, cube: Cube, folds: list[Fold], opinions: Path, sectors: dict[str, str]
) -> dict[str, dict[str, Path]]:  # fmt: skip
    """Stage folders by fold and stage. The driver only watches; progress is what the run's events say.

    As many folds are under way as the cluster has CPUs: more would hold memory and wait.
    """
    here, spoken = str(run.path.resolve()), str(opinions.resolve())
    waiting, width = list(folds), max(1, int(ray.cluster_resources().get("CPU", 1)))  # a head alone may have none yet
    under_way: dict[Any, str] = {}
    done: dict[str, dict[str, Path]] = {}
    with (run.path / "events.jsonl").open() as events:
        events.seek(0, 2)
        while waiting or under_way:
            while waiting and len(under_way) < width:
                fold = waiting.pop(0)
                under_way[_run_fold.remote(here, [cube_ref], cube.id, fold, spoken, sectors)] = fold.name
            ready, _ = ray.wait(list(under_way), timeout=1.0)
            for event in committed(events):
                log.info("%s done", event["stage"])
            for ref in ready:
                done[under_way.pop(ref)] = {stage: Path(path) for stage, path in _or_end_all(ref, under_way).items()}
    return done


def _or_end_all(ref: Any, under_way: Iterable[Any]) -> dict[str, str]:
    """What a fold left. Where it failed, so has the run: the folds beside it end too, and do not work on for nobody."""
    try:
        return ray.get(ref)
    except RayError:
        for other in under_way:
            ray.cancel(other, force=True, recursive=True)  # stages commit whole; an interrupt waits for native code, or for ever
        raise


@ray.remote(num_cpus=0, max_retries=0)
def _run_fold(run_path: str, cube_box: list[Any], cube_id: str, fold: Fold, opinions: str, sectors: dict[str, str]) -> dict[str, str]:
    """One fold from forecast to backtest; the live fold has no test block to walk."""
    run, cube_ref = Run.open(run_path), cube_box[0]
    cube: Cube = ray.get(cube_ref)
    config, place, terms = run.config, f"fold={fold.name}", terms_of(run.config, cube, sectors)
    told = tell(run, cube_ref, cube, cube_id, fold, Path(opinions), terms)

    def learn(out: Path) -> None:
        record = train(
            cube_ref, fold, told.tables, told.desk, terms, section=config.rl, features=observed(config, cube),
            seed=seed_for(config.seed, place), out_dir=out / artefacts.POLICY,
        )  # fmt: skip
        (out / "record.json").write_text(canonical_json(record))

    def backtest(out: Path) -> None:
        policy, judge = policies.load(done["rl"] / artefacts.POLICY), load_weigher(done["feedback"])
        heard, rows = _on_table(told.spoken, cube, fold.last.rows), fold.last.rows
        ray.get(backtest_fold.remote(cube_ref, rows, policy, told.tables, heard, weigh_with(judge), terms, out_dir=str(out)))

    done = dict(told.folders)
    stage = run.stage(f"rl/{place}", told.keys, fold, config.rl.model_dump(mode="json"), terms)
    done["rl"] = stage.get_or(learn)
    if fold.last.role == "test":
        done["backtest"] = run.stage(f"backtest/{place}", stage.key).get_or(backtest)
    return {name: str(path) for name, path in done.items()}


@dataclass(frozen=True, eq=False)
class Told:
    """What the stages before the policy say in a fold, out of sample."""

    folders: dict[str, Path]  # by stage
    keys: tuple[str, ...]  # of those stages
    tables: dict[str, ForecastTable]
    spoken: list[Opinion | Abstention]
    desk: OpinionTable


def tell(run: Run, cube_ref: Any, cube: Cube, cube_id: str, fold: Fold, opinions: Path, terms: Terms) -> Told:
    """Forecasts of a fold, and the manager's verdicts on what the desk said: two stages of the run."""
    config, place = run.config, f"fold={fold.name}"
    base = [cube_id, fold, config.seed]
    spoken, table = _spoken(opinions, cube, config)
    judged_by = outcome_terms(config, terms)

    def forecast(out: Path) -> None:
        write_tables(forecast_fold(cube_ref, fold, config.forecast, seed=config.seed, storage=out), out / TABLES)

    def feedback(out: Path) -> None:
        seed, resamples = seed_for(config.seed, place), config.backtest.resamples
        manager, record = judge_fold(cube_ref, fold, table, config.feedback, seed, out, terms=judged_by, resamples=resamples)
        np.savez_compressed(out / "manager.npz", as_of=manager.as_of, p_up=manager.p_up)
        (out / "record.json").write_text(canonical_json(record))

    first = run.stage(f"forecast/{place}", base, config.forecast.model_dump(mode="json"))
    forecasts = first.get_or(forecast)
    judged = [config.feedback.model_dump(mode="json"), config.backtest.resamples]
    second = run.stage(f"feedback/{place}", base, judged, opinions.name, judged_by)
    verdicts = second.get_or(feedback)
    desk = _with_manager(table, _manager(verdicts, table))
    return Told({"forecast": forecasts, "feedback": verdicts}, (first.key, second.key), read_tables(forecasts / TABLES), spoken, desk)


def _on_table(spoken: list[Opinion | Abstention], cube: Cube, rows: slice) -> list[Opinion | Abstention]:
    """Opinions that are the last ones, or those before the last, at some row of `rows`."""
    moments = np.unique(np.array([o.as_of for o in spoken], "datetime64[us]"))
    start = moments[max(np.searchsorted(moments, cube.known_at[rows.start], side="right") - 2, 0)]
    return [o for o in spoken if start <= o.as_of <= cube.known_at[rows.stop - 1]]


def _result(
    run: Run, cube: Cube, dataset: Dataset, ingested: dict[str, Any], folds: list[Fold], opinions: Path, stages: dict[str, dict[str, Path]]
) -> dict[str, Any]:  # fmt: skip
    """Everything that the report shows, but for the trials: how often others tried does not follow from this run."""
    config, tested = run.config, [f for f in folds if f.last.role == "test"]
    walked, vault = [_walked(stages[f.name]) for f in tested], vault_of(config, cube)
    figures = results.policy_results(
        {name: [fold[name] for fold in walked] for name in walked[0]}, held_by=config.rl.policy, bars_per_year=cube.bars_per_year,
        resamples=config.backtest.resamples, seed=config.seed,
    )  # fmt: skip
    tables = [read_tables(stages[f.name]["forecast"] / TABLES) for f in tested]
    shown = tested if vault.state == "closed" else folds  # what the live models did on validation, they did in the vault
    records_of = {
        part: {f.name: json.loads((stages[f.name][part] / "record.json").read_text()) for f in shown} for part in ("feedback", "rl")
    }
    terms = terms_of(config, cube, dataset.sectors)
    spoken, table = _spoken(opinions, cube, config)
    desk = results.desk_result(
        cube, spoken, table, [_manager(stages[f.name]["feedback"], table) for f in tested], [f.last for f in tested],
        terms=outcome_terms(config, terms), resamples=config.backtest.resamples, seed=config.seed,
    )  # fmt: skip
    trained = config.forecast.ttm.trained_until
    return {
        **figures, **records_of, "seed": config.seed, "config_hash": config.hash, "vault": vault.result,
        "data": results.data_result(cube, dataset, ingested["quality"]),
        "policy": config.rl.policy, "execution": results.execution_result(terms, len(cube.symbols)),
        "folds": [results.fold_result(f, cube, walked[k], seed=config.seed) for k, f in enumerate(tested)],
        "forecasts": results.forecast_results(tables, [f.last for f in tested], cube, seed=config.seed),
        "analysts": desk,
        "decision": Predictor(config, dataset, cube, artefacts.load_all(run.path)).predict(cube.symbols).model_dump(mode="json"),
        "notes": vault.notes + results.notes(
            cube, source=config.data.type, terms=terms, analysts=desk,
            trained_until=str(trained) if trained else None,
        ),
    }  # fmt: skip


def _trials(config: Config, cube: Cube, data_version: str, folds: list[Fold], stages: dict[str, dict[str, Path]]) -> list[Trial]:
    """What every policy returned on every test block.

    A try is known by what it did: a rule that does the same on the same bars is no new one, and one configuration that does
    something else, made by other code, is.
    """
    blocks = [f for f in folds if f.last.role == "test"]
    walked = [_walked(stages[f.name]) for f in blocks]
    trials = []
    for name in walked[0]:
        rule = name not in LEARNERS
        did = content_hash([name if rule else config.hash, *(fold[name].returns for fold in walked)])
        trials += [
            Trial(
                name, rule, did, did if rule else config.family, config.seed, data_version,
                f"{cube.times[f.last.rows.start]}/{cube.times[f.last.rows.stop]}", fold[name].times, fold[name].returns,
                fold[results.BENCHMARK].returns,
            )
            for f, fold in zip(blocks, walked, strict=True)
        ]  # fmt: skip
    return trials


def _walked(stages: dict[str, Path]) -> dict[str, Episode]:
    """The episodes of a fold's test block by policy."""
    return {p.stem: read_episode(p) for p in sorted(stages["backtest"].glob("*.npz"))}


def _spoken(opinions: Path, cube: Cube, config: Config) -> tuple[list[Opinion | Abstention], OpinionTable]:
    """The desk's opinions one by one and in bulk."""
    table = pq.read_table(opinions / "opinions.parquet")
    return records.of_arrow(table), records.dense(table, cube.symbols, config.agents.roster)


def _manager(feedback: Path, table: OpinionTable) -> OpinionTable:
    """The manager's verdict on each decision row of a fold."""
    with np.load(feedback / "manager.npz") as saved:
        return OpinionTable(saved["as_of"], table.symbols, (MANAGER,), saved["p_up"], table.horizon_bars)


def _with_manager(table: OpinionTable, manager: OpinionTable) -> OpinionTable:
    """The desk as a learner hears it: whenever it spoke on a row of the fold, the analysts' word and the manager's."""
    spoke, heard = np.isin(table.as_of, manager.as_of), np.isin(manager.as_of, table.as_of)
    p_up = np.concatenate([table.p_up[spoke], manager.p_up[heard]], axis=-1)
    return OpinionTable(manager.as_of[heard], table.symbols, (*table.authors, MANAGER), p_up, table.horizon_bars)
