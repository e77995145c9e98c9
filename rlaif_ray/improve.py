"""The loop that improves a desk: roll out, close, fit, hold against the judge in office on unseen dates, keep only what is better.

Each turn is four stages of a run, committed once and skipped on resume:

rollout     the desk's opinions on the rows since the last turn (Ray Data)
close       what has come of all opinions by the turn's first row, from a cube that ends there (Ray Data)
fit         a challenger and the shrunk track record from the pairs that had closed (Ray Train), and how good it is held out
contest     verdicts of all arms on the turn's block, what they earn, and whether the challenger takes over
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch

from rlaif_ray import artefacts, ray_runtime, results
from rlaif_ray.agents import build as seat_rules
from rlaif_ray.agents import records
from rlaif_ray.backtest.episodes import read_episode
from rlaif_ray.config import Config
from rlaif_ray.core import Analyst, Cube, ModelRef, OpinionTable, canonical_json, content_hash
from rlaif_ray.data.cube import Dataset
from rlaif_ray.data.stages_on_ray import dataset_of
from rlaif_ray.errors import ConfigError
from rlaif_ray.execution.terms import Terms
from rlaif_ray.feedback import build
from rlaif_ray.feedback.closing_on_ray import close_on_ray, rollout
from rlaif_ray.feedback.contest import challenge, standing
from rlaif_ray.feedback.context import context_features
from rlaif_ray.feedback.evidence import claims_skill, held_out
from rlaif_ray.feedback.lessons import LabelNoise, judged_pairs
from rlaif_ray.feedback.outcomes import tabled
from rlaif_ray.feedback.reward_training_on_ray import fit_ensemble
from rlaif_ray.feedback.thesis_analyst import ThesisAnalyst
from rlaif_ray.feedback.thesis_desk_on_ray import seated, teach
from rlaif_ray.feedback.thesis_on_ray import reading, study_of
from rlaif_ray.feedback.weighing import EqualWeights, Weigher, fit_weigher, load_weigher
from rlaif_ray.feedback.yardstick import OutcomeTerms
from rlaif_ray.folds import Cycle
from rlaif_ray.improve_contest import Heard, hear
from rlaif_ray.improve_report import render
from rlaif_ray.improve_result import ARMS, CHALLENGER, EQUAL, OFFICE, TRACK_RECORD, found, write_block
from rlaif_ray.ledger import Trial, TrialLedger
from rlaif_ray.plan import cut_cycles, outcome_terms, terms_of, vault_of
from rlaif_ray.runs import Run, code_version, seed_for, write_atomically

SAID, JUDGE, KNOWN = "contest.json", "judge.json", "known.json"
THESIS = "thesis"


@dataclass(frozen=True)
class _Loop:
    """What every stage reads."""

    run: Run
    cube: Cube
    cube_ref: Any
    terms: Terms
    judged_by: OutcomeTerms

    @property
    def config(self) -> Config:
        return self.run.config

    def seed(self, use: str) -> int:
        return seed_for(self.config.seed, f"improve/{use}")


def improve(config: Config, run_dir: str | None = None, resume: str | None = None) -> tuple[Run, dict[str, Any]]:
    """`config.improve.cycles` turns over the source's past, in a new run directory or, with `resume`, going on in one.

    Leaves the judge in office after the last turn in `artefacts/judge`, with a manifest. Raises what the stages raise; a
    `ConfigError` or `DataError` before the first turn leaves no directory behind.
    """
    with Run.resume(resume, "improve") if resume is not None else Run.create("improve", config, run_dir) as run:
        ray_runtime.attach()
        dataset, ingested = dataset_of(run)
        if run.config.improve.thesis:
            dataset = reading(dataset, study_of(run.config.thesis))
        cube = dataset.cube()
        _check_thesis(run.config)
        turns, vault, ledger = cut_cycles(run.config, cube), vault_of(run.config, cube), TrialLedger(run.config.lake.uri)
        run.settle()
        terms = terms_of(run.config, cube, dataset.sectors)
        loop = _Loop(run, cube, ray.put(cube), terms, outcome_terms(run.config, terms))
        contests, desks = _walk(loop, turns)
        artefacts.keep_dataset(run.path, dataset)
        _keep(loop, dataset, desks[-1], contests[-1])
        notes = [
            *([f"The vault, {vault.first} to {vault.last}, was left out: nothing was learnt or judged there."] if vault.bars else []),
            *results.notes(cube, source=run.config.data.type, terms=terms, analysts={}, trained_until=None),
        ]
        result = {
            "seed": run.config.seed, "config_hash": run.config.hash, "improve": run.config.improve.model_dump(mode="json"),
            "vault": vault.result, "notes": notes, "data": results.data_result(cube, dataset, ingested["quality"]),
            "desk": _about(run.config), "execution": results.execution_result(terms, len(cube.symbols)),
            **found(cube, turns, contests, resamples=run.config.backtest.resamples, seed=run.config.seed),
        }  # fmt: skip
        ledger.record(_trials(loop, dataset, turns, contests))  # first: who has seen the result has tried
        run.write_result(result)
        trials = ledger.count(dataset.data_version)
        write_atomically(run.path / "verdict.json", canonical_json({"trials": trials, "ledger": ledger.verify()}))
        render(result, run.path / "report.html", trials=trials)
    return run, result


def _about(config: Config) -> dict[str, Any]:
    """On which terms the desk was asked, judged and weighed."""
    agents, feedback = config.agents, config.feedback
    voices = [*agents.roster, *([ThesisAnalyst.name] if config.improve.thesis else [])]
    asked = {"voices": voices, "every_bars": agents.every_bars, "horizon_bars": agents.horizon_bars}
    return asked | feedback.model_dump(mode="json", include={"metric", "tie", "sees", "size", "members", "bar", "heads"})


def _check_thesis(config: Config) -> None:
    """A desk answers one question, from what there is. Raises `ConfigError` where the thesis policy would do otherwise."""
    if config.improve.thesis and config.thesis.planted_insider is not None:
        raise ConfigError("--thesis.planted_insider plants a score for `rlaif train-thesis` alone; leave it out beside --improve.thesis")
    if config.improve.thesis and config.thesis.horizon_bars != config.agents.horizon_bars:
        raise ConfigError(
            f"--thesis.horizon_bars is {config.thesis.horizon_bars} and --agents.horizon_bars {config.agents.horizon_bars}; "
            "on one desk both look as far ahead"
        )


def _walk(loop: _Loop, turns: list[Cycle]) -> tuple[list[Path], list[Path]]:
    """The folders of the contests and of the roll-outs, in the order of time."""
    spoken: list[Path] = []
    contests: list[Path] = []
    for turn in turns:
        spoken += _rollouts(loop, turn)
        closed = _close(loop, turn, spoken)
        fitted = _fit(loop, turn, spoken, closed)
        contests.append(_contest(loop, turn, spoken, fitted, contests[-1] if contests else None))
    return contests, spoken


def _rollouts(loop: _Loop, turn: Cycle) -> list[Path]:
    """The desk's opinions on the rows that the turn adds: before the first turn all that there is to learn from, then its block.

    A thesis policy on the desk is taught on what had closed before the rows that it speaks on. Before the first block it
    speaks on the later half only, taught on the earlier: whoever weighs it learns from what it said of rows that it did not know.
    """
    embargo, block = loop.config.backtest.embargo_bars, _spoken(loop, turn.block, turn.learn)
    if turn.number > 1:
        return [block]
    start, stop = turn.learn.start, turn.block.start
    if not loop.config.improve.thesis:
        return [_spoken(loop, slice(start, stop), None), block]
    middle = (start + stop) // 2
    return [_spoken(loop, slice(start, middle), None), _spoken(loop, slice(middle, stop), slice(start, middle - embargo)), block]


def _spoken(loop: _Loop, rows: slice, learn: slice | None) -> Path:
    """What the desk says on `rows`; where there is one, its thesis policy has learnt from `learn`."""
    section, theses = loop.config.agents, loop.config.improve.thesis and learn is not None

    def compute(out: Path) -> None:
        desk: list[Analyst] = list(seat_rules(section))
        if theses and learn is not None:
            policy = teach(loop.cube_ref, learn, loop.config.thesis, loop.judged_by, seed=loop.seed(f"thesis/rows={rows.start}"))
            policy.save(out / THESIS)
            (out / THESIS / KNOWN).write_text(canonical_json(learn.stop))
            desk.append(seated(policy, loop.config.thesis))
        spoken = rollout(loop.cube_ref, rows, section, analysts=desk)
        given = spoken["as_of"].to_numpy().astype("datetime64[us]")  # the first may be of the rows before
        spoken = spoken.filter(pa.array(given >= loop.cube.known_at[rows.start]))
        pq.write_table(spoken, out / "opinions.parquet", compression="zstd")

    asked = [section.model_dump(mode="json"), loop.judged_by, rows, learn if theses else None]
    taught = [loop.config.thesis.model_dump(mode="json"), loop.config.seed] if theses else []
    return loop.run.stage(f"rollout/rows={rows.start}", loop.cube.id, *asked, *taught).get_or(compute)


def _close(loop: _Loop, turn: Cycle, spoken: list[Path]) -> Path:
    """What had come of the desk's opinions when the turn's block began, from a cube that ends there."""

    def compute(out: Path) -> None:
        known = ray.put(loop.cube.head(turn.block.start))
        outcomes = close_on_ray(_records(loop, spoken, turn.block.start), known, loop.judged_by)
        pq.write_table(outcomes, out / "outcomes.parquet", compression="zstd")

    return loop.run.stage(f"close/{turn.name}", [p.name for p in spoken], loop.judged_by, turn.block.start).get_or(compute)


def _records(loop: _Loop, spoken: list[Path], stop: int) -> pa.Table:
    """Opinions given before row `stop`, in order of time."""
    table = pa.concat_tables([pq.read_table(p / "opinions.parquet") for p in spoken])
    given = table["as_of"].to_numpy().astype("datetime64[us]")
    return table.filter(pa.array(given < loop.cube.known_at[stop]))


def _table(loop: _Loop, spoken: pa.Table) -> OpinionTable:
    voices = (*loop.config.agents.roster, ThesisAnalyst.name) if loop.config.improve.thesis else loop.config.agents.roster
    return records.dense(spoken, loop.cube.symbols, voices)


def _fit(loop: _Loop, turn: Cycle, spoken: list[Path], closed: Path) -> Path:
    """In `challenger` and `track_record` what was learnt from pairs that had closed; in judge.json how good it is held out."""
    section, workers, seed = loop.config.feedback, loop.config.improve.workers, loop.seed(f"{turn.name}/judge")
    resamples, embargo = loop.config.backtest.resamples, loop.config.backtest.embargo_bars

    def compute(out: Path) -> None:
        known = loop.cube.head(turn.block.start)
        said = _records(loop, spoken, turn.block.start)
        table = _table(loop, said)
        outcomes = tabled(pq.read_table(closed / "outcomes.parquet"), said, table, known.known_at)
        judged = judged_pairs(outcomes, table, tie=section.tie, metric=section.metric)
        usable, context = judged.inside(turn.learn), context_features(known, outcomes.opened_row)
        labels: dict[str, Any] = {"tie": section.tie, "metric": section.metric, "stated": section.label_smoothing}
        noise = LabelNoise(outcomes, table, known, loop.judged_by, **labels)
        smoothing = noise.smoothing(turn.learn)
        settings = build(section, table.authors, seed=seed, label_smoothing=smoothing)
        asked: dict[str, Any] = {"min_pairs": section.min_pairs}
        fit_weigher("track_record", turn.learn, context, table, outcomes, judged, settings, **asked).save(out / TRACK_RECORD)
        about = {"n_pairs": len(usable), "label_smoothing": smoothing}
        if len(usable) < section.min_pairs:
            challenger: Weigher = fit_weigher("reward_model", turn.learn, context, table, outcomes, judged, settings, **asked)
            fair = None
        else:
            challenger = fit_ensemble(context, table, usable, settings, workers=workers, storage=out)
            asked |= {"resamples": resamples, "seed": seed, "smoothing": noise.smoothing, "embargo": embargo}
            fair = ray.get(_held_out.remote([context, outcomes, table, usable, settings], asked))
        challenger.save(out / CHALLENGER)
        reason = challenger.reason if isinstance(challenger, EqualWeights) else ""
        about |= {"kind": challenger.kind, "state_hash": challenger.state_hash, "reason": reason}
        about |= {"held_out": fair, "shows_skill": claims_skill(fair)}
        (out / JUDGE).write_text(canonical_json(about))

    inputs = [closed.name, turn, section.model_dump(mode="json"), workers, resamples, embargo, seed]
    return loop.run.stage(f"fit/{turn.name}", loop.cube.id, *inputs).get_or(compute)


@ray.remote(num_cpus=1)
def _held_out(inputs: list[Any], asked: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)
    return held_out(*inputs, **asked)


def _contest(loop: _Loop, turn: Cycle, spoken: list[Path], fitted: Path, before: Path | None) -> Path:
    """All arms on the turn's block, and in `in_office` the judge that is in office after it."""
    section, config = loop.config.improve, loop.config
    drawn = {"resamples": config.backtest.resamples, "seed": loop.seed(f"{turn.name}/contest")}

    def compute(out: Path) -> None:
        table = _table(loop, _records(loop, spoken, turn.block.stop))
        equal = EqualWeights(table.authors, "no challenger was better")
        weighers = {
            OFFICE: load_weigher(before / OFFICE) if before else equal, CHALLENGER: load_weigher(fitted / CHALLENGER),
            TRACK_RECORD: load_weigher(fitted / TRACK_RECORD), EQUAL: equal,
        }  # fmt: skip
        known = dict.fromkeys(weighers, turn.learn.stop) | ({OFFICE: _said(before)["known"]} if before else {})
        heard: Heard = ray.get(hear.remote(loop.cube_ref, turn, table, weighers, known, loop.judged_by, loop.terms, config))
        write_block(out, heard.block, heard.verdicts, heard.episodes)
        challenger, office = heard.verdicts[CHALLENGER], heard.verdicts[OFFICE]
        said = challenge(challenger, office, heard.block, alpha=section.alpha / section.cycles, **drawn)
        winner = CHALLENGER if said.kept else OFFICE
        heard.weighers[winner].save(out / OFFICE)
        in_office = f"turn {turn.number}" if said.kept else (_said(before)["office"] if before else "equal weights")
        arms = {arm: standing(p_up, heard.block, **drawn) for arm, p_up in heard.verdicts.items()}
        judge = json.loads((fitted / "judge.json").read_text())
        told = {"judge": judge, "arms": arms, "challenge": asdict(said), "office": in_office, "known": heard.known[winner]}
        (out / SAID).write_text(canonical_json(told))

    inputs = [fitted.name, before.name if before else None, [p.name for p in spoken], loop.terms, section.model_dump(mode="json"), drawn]
    return loop.run.stage(f"contest/{turn.name}", loop.cube.id, *inputs).get_or(compute)


def _said(contest: Path) -> dict[str, Any]:
    return json.loads((contest / SAID).read_text())


def _keep(loop: _Loop, dataset: Dataset, desk: Path, contest: Path) -> None:
    """In `artefacts/judge` the judge in office, in `artefacts/thesis` the last thesis policy of the desk, each with a manifest."""
    kept = {"judge": (contest / OFFICE, _said(contest)["known"])}
    if loop.config.improve.thesis:
        kept["thesis"] = desk / THESIS, json.loads((desk / THESIS / KNOWN).read_text())
    for name, (folder, known) in kept.items():
        out = loop.run.path / "artefacts" / name
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(folder, out)
        fit_end = str(loop.cube.times[known - 1])
        ref = ModelRef(name, code_version(), f"artefacts/{name}", loop.config.hash, dataset.data_version, fit_end, fit_end)
        hashes = {f.name: hashlib.sha256(f.read_bytes()).hexdigest()[:16] for f in sorted(out.iterdir())}
        about = {"office": _said(contest)["office"]} if name == "judge" else {}
        write_atomically(out / "manifest.json", canonical_json({**about, "model": asdict(ref), "hashes": hashes}))


def _trials(loop: _Loop, dataset: Dataset, turns: list[Cycle], contests: list[Path]) -> list[Trial]:
    """What each arm earned on each block: a run of the loop is a search too."""
    trials = []
    for turn, contest in zip(turns, contests, strict=True):
        benchmark = read_episode(contest / f"{results.BENCHMARK}.npz").returns
        where = f"{loop.cube.times[turn.block.start]}/{loop.cube.times[turn.block.stop]}"
        for arm in ARMS:
            episode, rule = read_episode(contest / f"{arm}.npz"), arm == EQUAL
            did = content_hash([arm if rule else loop.config.hash, episode.returns])
            trials.append(Trial(
                f"desk/{arm}", rule, did, did if rule else loop.config.family, loop.config.seed, dataset.data_version, where,
                episode.times, episode.returns, benchmark,
            ))  # fmt: skip
    return trials
