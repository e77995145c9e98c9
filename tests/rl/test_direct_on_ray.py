"""Under Ray a direct policy is what it is without: whoever trains a member, and whoever dies."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlaif_ray.backtest import engine
from rlaif_ray.config_rl import RL, Direct
from rlaif_ray.errors import ConfigError, ModelError
from rlaif_ray.execution.terms import Terms
from rlaif_ray.folds import walk_forward
from rlaif_ray.portfolio.limits import Limits
from rlaif_ray.rl.course import Course
from rlaif_ray.rl.direct_on_ray import OBJECTIVE, candidates, sweep, train_direct
from rlaif_ray.rl.direct_policy import DirectPolicy
from rlaif_ray.rl.direct_training import CHECKS, fit_network
from rlaif_ray.runs import seed_for
from tests.laws import parameter_hash
from tests.rl.toys import COSTS, toy

pytestmark = pytest.mark.usefixtures("ray_session")

SECTION = RL(members=3, sees=("features",), direct=Direct(hidden=(8, 8), steps=20, paths=8, horizon_bars=4, learning_rate=1e-2))
FOLD = walk_forward(600, folds=2, test_fraction=0.4, forecaster_fraction=0.5, inner_windows=2, horizon=2, embargo=2, warmup=10)[0]
TERMS = Terms(costs=COSTS, limits=Limits(max_weight=0.5, max_sector=0.8), sectors={"A": "x", "B": "x"})


def course() -> Course:
    cube = toy(signal=0.3, rows=600)
    return Course.of(cube, FOLD, {}, None, TERMS, section=SECTION, features=cube.feature_names)


def hashes(policy: DirectPolicy) -> list[str]:
    return [parameter_hash(n.state_dict()) for n in policy.networks]


def one_by_one(given: Course) -> list[str]:
    seeds = [seed_for(1, f"member={m}", bits=31) for m in range(SECTION.members)]
    knobs = SECTION.direct.model_dump()
    return [parameter_hash(fit_network(given.train, given.validation, allowed=given.allowed, **knobs, seed=s).state) for s in seeds]


def test_ray_train_in_this_process_trains_as_without_it(tmp_path: Path) -> None:
    given = course()
    told = train_direct(given, section=SECTION, seed=1, out_dir=tmp_path, workers=0)
    policy = DirectPolicy.load(tmp_path)
    assert hashes(policy) == one_by_one(given) and len(set(hashes(policy))) == 3
    assert told["fields"] == ["z", "x", "y"] and sorted(f.suffix for f in tmp_path.iterdir()) == [".json"] + [".safetensors"] * 3
    for member in told["members"]:
        assert [p["step"] for p in member["curve"]] == [2 * k for k in range(1, CHECKS + 1)]
        assert member["kept_step"] == max(member["curve"], key=lambda p: (p["validation_utility"], p["step"]))["step"]
    assert policy.sectors == TERMS.sectors and policy.allowed.max_sector == 0.8
    rows = slice(FOLD.last.rows.start, FOLD.last.rows.start + 5)
    _, decisions = engine.run(policy, toy(signal=0.3, rows=600), rows, TERMS)
    assert all(0.0 < sum(d.weights.values()) <= 1.0 + 1e-9 for d in decisions)


@pytest.mark.slow
def test_one_worker_and_two_train_the_same_members(tmp_path: Path) -> None:
    given = course()
    for workers in (1, 2):
        train_direct(given, section=SECTION, seed=1, out_dir=tmp_path / str(workers), workers=workers)
        assert hashes(DirectPolicy.load(tmp_path / str(workers))) == one_by_one(given)


@dataclass(frozen=True, eq=False)
class DeadlyOnce:
    """A course that kills the first process which unpacks it, as the kernel does when memory runs out."""

    course: Course
    mark: Path

    def __getattr__(self, name: str) -> Any:
        return getattr(self.course, name)

    def __reduce__(self) -> tuple[Any, tuple[Course, Path]]:
        return unpack_or_die, (self.course, self.mark)


def unpack_or_die(course: Course, mark: Path) -> Course:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return course


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_time_and_changes_nothing(tmp_path: Path) -> None:
    given = DeadlyOnce(course(), tmp_path / "killed")
    train_direct(given, section=SECTION, seed=1, out_dir=tmp_path / "policy", workers=2)  # pyright: ignore[reportArgumentType]
    assert given.mark.exists()
    assert hashes(DirectPolicy.load(tmp_path / "policy")) == one_by_one(given.course)


def test_what_cannot_be_is_said_before_any_worker_starts(tmp_path: Path) -> None:
    for changes, line in (({"horizon_bars": 400}, r"^--rl\.direct\.horizon_bars is 400"), ({"heads": 3}, "3 heads do not divide")):
        section = SECTION.model_copy(update={"direct": SECTION.direct.model_copy(update=changes)})
        with pytest.raises(ConfigError, match=line):
            train_direct(course(), section=section, seed=1, out_dir=tmp_path, workers=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_sweep_finds_the_knob_that_learns_and_says_the_same_again(tmp_path: Path) -> None:
    """Of two learning rates one is too small to leave the start; the signal is plain."""
    cube = toy(signal=1.0, rows=600)
    given = Course.of(cube, FOLD, {}, None, TERMS, section=SECTION, features=cube.feature_names)
    space = {"learning_rate": (1e-9, 1e-2), "turnover": (0.0, 1e-4)}
    first, again = (
        sweep(given, space, section=SECTION.direct, trials=4, seed=3, storage=tmp_path) for _ in range(2)
    )  # fmt: skip
    assert first == again and not list(tmp_path.iterdir())
    values = [t[OBJECTIVE] for t in first.trials]
    assert len(values) == 4 and values == sorted(values, reverse=True) and all(t["checks"] == CHECKS for t in first.trials)
    assert {t["knobs"]["learning_rate"] for t in first.trials} == {1e-9, 1e-2}
    assert first.best["learning_rate"] == 1e-2 and first.best["hidden"] == (8, 8)
    direct = Direct(**first.best).model_dump()
    seed = {"seed": 3, "allowed": given.allowed}
    curve = fit_network(given.train, given.validation, **direct, **seed).curve
    assert values[0] == max(curve, key=lambda p: (p["validation_utility"], p["step"]))[OBJECTIVE]


@pytest.mark.slow
def test_bad_trials_are_stopped_early(tmp_path: Path) -> None:
    cube = toy(signal=1.0, rows=600)
    given = Course.of(cube, FOLD, {}, None, TERMS, section=SECTION, features=cube.feature_names)
    found = sweep(given, {"learning_rate": (1e-9, 1e-2)}, section=SECTION.direct, trials=6, seed=3, storage=tmp_path, stop_early=True)
    assert len(found.trials) == 6 and found.best["learning_rate"] == 1e-2
    assert min(t["checks"] for t in found.trials) < CHECKS == found.trials[0]["checks"]


@pytest.mark.parametrize(
    ("space", "line"),
    [
        ({"learning_rat": [1e-3]}, r"the sweep is over 'learning_rat'.*Did you mean 'learning_rate'"),
        ({"steps": [10, 0]}, r"^--sweep\.space\.steps has 0; expected: .*greater than or equal to 1"),
        ({"input_noise": [-1]}, r"^--sweep\.space\.input_noise has -1"), ({"hidden": [[8], []]}, r"^--sweep\.space\.hidden has \[\]"),
        ({"horizon_bars": [4, 400]}, r"^--sweep\.space\.horizon_bars is 400, but there are \d+ bars"),
        ({"turnover": []}, r"^--sweep\.space\.turnover is empty"),
    ],
)  # fmt: skip
def test_a_space_that_cannot_be_is_refused_before_any_trial_starts(space: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=line) as caught:
        sweep(course(), space, section=SECTION.direct, trials=1, seed=0, storage=tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_values_come_as_the_section_holds_them() -> None:
    """YAML reads 1e-3 as a word."""
    space = {"learning_rate": ["1e-3"], "hidden": [[8, 8]], "horizon_bars": [4]}
    found = candidates(space, Direct(horizon_bars=400), 100)
    assert found == {"learning_rate": [1e-3], "hidden": [(8, 8)], "horizon_bars": [4]}


def test_trials_that_fail_are_told_with_why_and_all_of_them_are_an_error(tmp_path: Path) -> None:
    section = SECTION.direct.model_copy(update={"heads": 2, "steps": 10})
    found = sweep(course(), {"hidden": [[9], [8]]}, section=section, trials=4, seed=0, storage=tmp_path)
    assert len(found.trials) + len(found.failed) == 4 and found.best["hidden"] == (8,)
    why = "2 heads do not divide the last hidden width, 9; change --rl.direct.heads or --rl.direct.hidden"
    assert found.failed and all(trial == {"knobs": {"hidden": (9,)}, "error": why} for trial in found.failed)
    with pytest.raises(ModelError, match="none of 1 trials came to an end; the first failed with: 2 heads do not divide"):
        sweep(course(), {"hidden": [[9]]}, section=section, trials=1, seed=0, storage=tmp_path)
