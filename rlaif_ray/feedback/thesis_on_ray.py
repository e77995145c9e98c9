"""The thesis experiment on Ray: data as any run takes it, one task a fold, each fold a stage that is committed once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayError

from rlaif_ray import ray_runtime, results
from rlaif_ray.backtest import engine
from rlaif_ray.backtest.episodes import read_episode, write_episode
from rlaif_ray.config import Config
from rlaif_ray.config_thesis import Thesis
from rlaif_ray.core import Cube, Episode, ModelRef, canonical_json, content_hash
from rlaif_ray.data.cube import Dataset
from rlaif_ray.data.sources_on_ray import build as build_source
from rlaif_ray.data.stages_on_ray import dataset_of
from rlaif_ray.data.synthetic import SyntheticSource
from rlaif_ray.errors import ConfigError
from rlaif_ray.execution.terms import Terms
from rlaif_ray.feedback.thesis_experiment import RFT, SFT, Exam, Ground, Study, ThesisFold, cut, examined, figures, learnt, paired, taught
from rlaif_ray.feedback.thesis_market import PRICE_SUBSET, observed_features, plant_insider, sources_of, thesis_features
from rlaif_ray.feedback.thesis_rewards import Rewards
from rlaif_ray.feedback.thesis_schema import ThesisForm
from rlaif_ray.feedback.thesis_trades import earned, positions, traded
from rlaif_ray.feedback.thesis_training import Rft, Sft
from rlaif_ray.feedback.yardstick import OutcomeTerms
from rlaif_ray.folds import judged_rows
from rlaif_ray.ledger import Trial, TrialLedger
from rlaif_ray.plan import outcome_terms, terms_of, vault_of
from rlaif_ray.runs import Run, Stage, code_version, seed_for, write_atomically
from rlaif_ray.strategies import BuyAndHold, EqualWeight

HOLD, EQUAL = BuyAndHold.name, EqualWeight.name


def train_thesis(config: Config, run_dir: str | None = None, resume: str | None = None) -> tuple[Run, dict[str, Any]]:
    """Teach and test the thesis policy on `config.thesis.folds` folds, in a new run directory or going on in one.

    Leaves each fold's policies in `artefacts/fold=<k>/<arm>`, with a manifest. Raises what the stages raise; a `ConfigError`
    or `DataError` before the first fold leaves no directory behind.
    """
    with Run.resume(resume, "train-thesis") if resume is not None else Run.create("train-thesis", config, run_dir) as run:
        study = study_of(run.config.thesis)
        ray_runtime.attach()
        dataset, ingested = dataset_of(run)
        cube = _cube(run.config, reading(dataset, study))
        folds, terms = _folds(run.config, cube), terms_of(run.config, cube, dataset.sectors)
        judged_by = outcome_terms(run.config, terms)
        seen = observed_features(thesis_features(cube, study.sources, study.form.features), study.form.features)
        run.settle()
        stages = _all_folds(run, cube, folds, study, terms, judged_by)
        result = _result(run.config, cube, dataset, ingested["quality"], folds, stages, study, terms, seen)
        _keep(run, cube, dataset, folds, stages, study)
        ledger = TrialLedger(run.config.lake.uri)
        ledger.record(_trials(run.config, cube, dataset.data_version, folds, stages, study))  # first: who has seen the result has tried
        run.write_result(result)
        verdict = {"trials": ledger.count(dataset.data_version), "ledger": ledger.verify()}
        write_atomically(run.path / "verdict.json", canonical_json(verdict))
    return run, result


def study_of(section: Thesis) -> Study:
    """The section's knobs as the experiment takes them. Raises `ConfigError` for a form that does not hold together."""
    return Study(
        ThesisForm.of(**section.form.model_dump()), Sft(**section.sft.model_dump()),
        Rft(**section.rft.model_dump()) if section.method == "rft" else None, Rewards(**section.rewards.model_dump()), section.hidden,
        section.horizon_bars, section.decision_z, sources_of(section.columns, planted=section.planted_insider is not None),
        section.min_features, section.min_validation,
    )  # fmt: skip


def reading(dataset: Dataset, study: Study) -> Dataset:
    """The dataset, with the columns that the thesis reads among those of the cube."""
    made = {s.name for name in dataset.catalog.sets for s in dataset.catalog.specs(name, dataset.price_kind)} - set(dataset.absent)
    more = [c for c in study.sources.values() if c in made and c not in dataset.features]
    return replace(dataset, features=(*dataset.features, *more))


def _cube(config: Config, dataset: Dataset) -> Cube:
    """With the planted insider, where one is asked for."""
    cube, coefficient = dataset.cube(), config.thesis.planted_insider
    if coefficient is None:
        return cube
    source = build_source(config.data)
    if not isinstance(source, SyntheticSource):
        raise ConfigError(f"--thesis.planted_insider is {coefficient} and --data.type {config.data.type}; only synthetic has one to plant")
    return plant_insider(cube, source, coefficient, seed=seed_for(config.seed, "thesis/insider"))


def _folds(config: Config, cube: Cube) -> list[ThesisFold]:
    """Every test outcome closes inside the data and before the vault, which no thesis run opens."""
    section, vault = config.thesis, vault_of(config, cube)
    if vault.opened:
        raise ConfigError(f"--backtest.vault is {config.backtest.vault}; theses are tested before the vault only: leave it closed")
    judged = judged_rows(len(cube.times), test_fraction=0.5, horizon=section.horizon_bars, vault=vault.row)
    return cut(
        min(judged.stop, len(cube.times) - section.horizon_bars), folds=section.folds, train_bars=section.train_bars,
        test_bars=section.test_bars, validation=section.validation, horizon=section.horizon_bars, embargo=config.backtest.embargo_bars,
    )  # fmt: skip


def _all_folds(
    run: Run, cube: Cube, folds: Sequence[ThesisFold], study: Study, terms: Terms, judged_by: OutcomeTerms
) -> dict[str, Path]:  # fmt: skip
    """Committed folder of each fold, by name; what is committed is not done again."""
    config = run.config
    stages = {f.name: run.stage(f"thesis/fold={f.name}", cube.id, f, study, terms, judged_by, config.seed) for f in folds}
    cube_ref = ray.put(cube)
    under_way: dict[Any, tuple[Stage, Path]] = {}
    for fold in folds:
        if not (stage := stages[fold.name]).done:
            out = stage.begin()
            seed = seed_for(config.seed, f"thesis/fold={fold.name}")
            under_way[_fold_task.remote(cube_ref, fold, study, terms, judged_by, seed, str(out.resolve()))] = stage, out
    try:
        for ref, (stage, out) in under_way.items():
            ray.get(ref)
            stage.commit(out)
    except RayError:
        for other in under_way:  # where one failed, so has the run: the others do not work on for nobody
            ray.cancel(other, force=True)
        raise
    return {name: stage.get_or(_nothing) for name, stage in stages.items()}


def _nothing(out: Path) -> None:
    raise AssertionError(f"{out}: every fold is committed by now")


# Ray's stubs know positional parameters only.
@ray.remote(num_cpus=1)  # pyright: ignore[reportCallIssue, reportArgumentType]
def _fold_task(cube: Cube, fold: ThesisFold, study: Study, terms: Terms, judged_by: OutcomeTerms, seed: int, out_dir: str) -> None:
    """Every arm of one fold, into `out_dir`: policy, what was tested, and the episodes."""
    torch.set_num_threads(1)
    out, ground = Path(out_dir), Ground.of(cube, study, judged_by)
    for rule in (BuyAndHold(), EqualWeight()):
        write_episode(out / f"{rule.name}.npz", engine.run(rule, cube, fold.test, terms)[0])
    listed = cube.listed[fold.test]
    for arm in study.arms:
        trained = taught(arm, ground, fold, seed=seed)
        trained.policy.save(out / arm)
        found = examined(trained.policy, ground, fold, seed=seed)
        found.save(out / f"{arm}.exam.npz")
        (out / f"{arm}.json").write_text(canonical_json(learnt(trained)))
        write_episode(out / f"{arm}.npz", traded(arm, cube, fold.test, positions(found.sides, listed, study.horizon_bars), terms))


def _result(
    config: Config, cube: Cube, dataset: Dataset, quality: Mapping[str, Any], folds: Sequence[ThesisFold], stages: Mapping[str, Path],
    study: Study, terms: Terms, seen: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """Everything that the table shows, and what led to it."""
    blocks = {arm: [Exam.load(stages[f.name] / f"{arm}.exam.npz") for f in folds] for arm in study.arms}
    walked = {name: [read_episode(stages[f.name] / f"{name}.npz") for f in folds] for name in (*study.arms, HOLD, EQUAL)}
    whole = {name: engine.concatenate(parts) for name, parts in walked.items()}
    drawn = {"bars_per_year": cube.bars_per_year, "resamples": config.backtest.resamples, "seed": seed_for(config.seed, "thesis/bootstrap")}
    arms = {name: earned(episode, whole[HOLD], whole[EQUAL], **drawn) for name, episode in whole.items()}
    vault = vault_of(config, cube)
    return {
        "seed": config.seed, "config_hash": config.hash, "thesis": config.thesis.model_dump(mode="json"), "vault": vault.result,
        "data": results.data_result(cube, dataset, quality), "source": config.data.type,
        "features": {"seen": list(seen), "missing": [f for f in study.form.features if f not in seen], "subset": _subset(seen, study)},
        "execution": results.execution_result(terms, len(cube.symbols)),
        "arms": {name: {**(figures(blocks[name], study.horizon_bars) if name in blocks else {}), **said} for name, said in arms.items()},
        "trips": {name: results.tripped(episode) for name, episode in whole.items()},
        "rft_over_sft": paired(blocks[RFT], blocks[SFT], study.horizon_bars) if RFT in blocks else None,
        "test": {"from": _day(whole[HOLD].times[0]), "to": _day(whole[HOLD].times[-1]), "bars": len(whole[HOLD].times)},
        "folds": [
            _fold_result(fold, cube, stages[fold.name], {a: blocks[a][k] for a in study.arms}, {n: e[k] for n, e in walked.items()}, study)
            for k, fold in enumerate(folds)
        ],
        "notes": vault.notes + results.notes(
            cube, source=config.data.type, terms=terms, analysts={}, trained_until=None
        ),
    }  # fmt: skip


def _subset(seen: Sequence[str], study: Study) -> str:
    """What of the features there is, in words."""
    if tuple(seen) == study.form.features:
        return f"all {len(seen)} features"
    if set(seen) == set(PRICE_SUBSET):
        return "price subset"
    return f"{len(seen)} of {len(study.form.features)} features"


def _fold_result(
    fold: ThesisFold, cube: Cube, folder: Path, blocks: Mapping[str, Exam], walked: Mapping[str, Episode], study: Study
) -> dict[str, Any]:  # fmt: skip
    parts = {"learn": fold.learn, "validation": fold.validation, "test": fold.test}
    spans = {name: [_day(cube.times[int(t)]) for t in (rows.start, rows.stop - 1)] for name, rows in parts.items()}
    arms = {
        arm: {**figures([block], study.horizon_bars), "learnt": json.loads((folder / f"{arm}.json").read_text())}
        for arm, block in blocks.items()
    }
    returns = {name: float(episode.equity[-1] - 1.0) for name, episode in walked.items()}
    return {"name": fold.name, **spans, "arms": arms, "total_return": returns}


def _keep(
    run: Run, cube: Cube, dataset: Dataset, folds: Sequence[ThesisFold], stages: Mapping[str, Path], study: Study
) -> None:  # fmt: skip
    """Each fold's policies, and a manifest that says what they are, on what they were fitted and what they read."""
    for fold in folds:
        out = run.path / "artefacts" / f"fold={fold.name}"
        shutil.rmtree(out, ignore_errors=True)
        fit_end = str(cube.times[fold.validation.stop - 1 + study.horizon_bars])  # the last row whose close any label has seen
        refs = []
        for arm in study.arms:
            shutil.copytree(stages[fold.name] / arm, out / arm)
            about = json.loads((stages[fold.name] / f"{arm}.json").read_text())
            version = f"{code_version()}/{about['state_hash']}"
            refs.append(asdict(ModelRef(f"thesis_{arm}", version, arm, run.config.hash, dataset.data_version, fit_end, fit_end)))
        manifest = {
            "fold": fold.name, "fit_end": fit_end, "serves_from": str(cube.known_at[fold.test.start]), "models": refs,
            "features": list(study.form.features), "sources": dict(study.sources), "horizon_bars": study.horizon_bars,
            "min_features": study.min_features,
        }  # fmt: skip
        write_atomically(out / "manifest.json", canonical_json(manifest))


def _trials(
    config: Config, cube: Cube, data_version: str, folds: Sequence[ThesisFold], stages: Mapping[str, Path], study: Study
) -> list[Trial]:  # fmt: skip
    """What every taught arm returned on every test block. A try is known by what it did."""
    trials = []
    for arm in study.arms:
        walked, even = ([read_episode(stages[f.name] / f"{name}.npz") for f in folds] for name in (arm, EQUAL))
        did = content_hash([arm, config.hash, study, *(e.returns for e in walked)])
        trials += [
            Trial(
                f"thesis_{arm}", False, did, content_hash([config.family, study]), config.seed, data_version,
                f"{cube.times[f.test.start]}/{cube.times[f.test.stop]}", e.times, e.returns, b.returns,
            )
            for f, e, b in zip(folds, walked, even, strict=True)
        ]  # fmt: skip
    return trials


def _day(moment: np.datetime64) -> str:
    return str(moment.astype("datetime64[D]"))
