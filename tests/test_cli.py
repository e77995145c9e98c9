"""Help is quick and complete; every mistake is one line and exit 2; flags and knobs reach the pipeline."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif_ray.cli import VERBS, _known_cause, _parse, main
from rlaif_ray.config import Config, known_knobs, load_config
from rlaif_ray.errors import ConfigError, DataError, ModelError
from rlaif_ray.runs import Run

ROOT = Path(__file__).parents[1]
GUIDES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "Makefile")]
GUIDES += [file for folder in ("clusters", "experiments", "serve_configs") for file in sorted((ROOT / folder).glob("*.yaml"))]


def heavy_modules_after(words: list[str], heavy: set[str]) -> tuple[str, str]:
    """What `rlaif <words>` prints in a fresh process, and which of `heavy` it imported."""
    script = f"import sys; from rlaif_ray.cli import main; main({words}); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    text, _, imported = done.stdout.rstrip().rpartition("\n")
    return text, imported


def test_help_of_the_command_lists_verbs_and_imports_nothing_heavy():
    """Help is quick by leaving out what makes it slow."""
    text, imported = heavy_modules_after(["--help"], {"numpy", "polars", "pydantic", "torch", "ray"})
    assert imported == "[]"
    assert all(re.search(rf"^  {verb} ", text, re.M) for verb in VERBS)


def test_help_of_a_verb_imports_neither_torch_nor_ray():
    assert heavy_modules_after(["pipeline", "--help"], {"torch", "ray", "pandas"})[1] == "[]"


def test_help_of_pipeline_says_every_knob_with_its_default(capsys):
    assert main(["pipeline", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for knob, (default, _) in known_knobs().items():
        assert f"--{knob} " in text
        if isinstance(default, (int, float, str)):
            assert f"[{default}]" in text
    assert not [knob for knob, (_, meaning) in known_knobs().items() if not meaning]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["pipelin"], ["unknown verb 'pipelin'", "Did you mean 'pipeline'?"]),
        (["pipeline", "--scal", "smoke"], ["unknown flag --scal", "Did you mean '--scale'?"]),
        (["pipeline", "--scale", "smok"], ["'smok'", "expected one of smoke, laptop", "Did you mean 'smoke'?"]),
        (["pipeline", "--rl.sac.updatez=3"], ["unknown knob --rl.sac.updatez", "Did you mean 'rl.sac.updates'?"]),
        (["pipeline", "--updates", "3"], ["unknown flag --updates", "Did you mean '--rl.sac.updates'?"]),
        (["pipeline", "--rl.sac.batch"], ["--rl.sac.batch needs a value"]),
        (["pipeline", "--rl.sac.batch=x"], ["--rl.sac.batch is 'x'", "integer"]),
        (["pipeline", "--rl.sac.gamma=1.5"], ["--rl.sac.gamma is 1.5", "less than 1"]),
        (["pipeline", "smoke"], ["unexpected 'smoke'"]),
        (["pipeline", "--json=yes"], ["--json is a switch"]),
        (["pipeline", "--config", "nope.yaml"], ["--config nope.yaml: No such file"]),
        (["pipeline", "--resume", "nope"], ["nope is not a run"]),
        (["pipeline", "--data.type=cvs"], ["--data.type is 'cvs'", "Did you mean 'csv'?"]),
        (["pipeline", "--data.type=csv"], ["--data.path is not set", "csv needs it"]),
        (["pipeline", "--data.type=csv", "--data.path=x", "--data.n_symbols=3"], ["unknown knob --data.n_symbols of csv"]),
        (["data"], ["unknown verb 'data'", "data status, data verify"]),
        (["data", "statuz"], ["unknown verb 'data statuz'", "Did you mean 'data status'?"]),
        (["data", "status"], ["this needs --lake URI"]),
        (["data", "verify", "--lake=nope"], ["no dataset in nope; it has []"]),
        (["stream", "--data.type=csv", "--data.path=x"], ["--data.type is 'csv'", "needs alpaca"]),
        (["stream", "--data.names=[A]"], ["--data.dataset=NAME"]),
        (["stream", "--data.names=[A]", "--data.dataset=x", "--for=soon"], ["--for is 'soon'; expected minutes above 0"]),
        (["stream", "--data.names=[A]", "--data.dataset=x", "--vendor=polygn"], ["--vendor is 'polygn'", "Did you mean 'polygon'?"]),
        *[(["stream", "--data.names=[A]", "--data.dataset=x", f"--data.feed={feed}", f"--vendor={vendor}"],
           [f"data.feed is {feed!r}", "as they are made", "expected one of iex, sip"])
          for feed, vendor in (("otc", "alpaca"), ("delayed_sip", "alpaca"), ("delayed_sip", "polygon"))],
        *[(["stream", "--data.names=[A]", "--data.dataset=x", f"--data.{knob}={value}"],
           [f"--data.{knob} is {value}", "until it is stopped"])
          for knob, value in (("start", "2026-01-02"), ("end", "2026-01-02"), ("days", "3"))],
        (["serve"], ["serve needs --run RUN"]),
        (["serve", "--run", "x", "--port=99999"], ["--port is '99999'", "1 to 65535"]),
        (["serve", "--run", "nope"], ["nope is not a run"]),
        (["serve", "--rl.sac.batch=3", "--run", "x"], ["unknown flag --rl.sac.batch"]),
    ],
)  # fmt: skip
def test_the_users_mistake_is_one_line_and_exit_2(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert all(part in err for part in says), err
    assert not list(tmp_path.iterdir())


def test_resume_takes_no_other_config(tmp_path, capsys):
    Run.create("pipeline", Config(), tmp_path / "run").close()
    assert main(["pipeline", "--resume", str(tmp_path / "run"), "--scale=smoke", "--rl.sac.batch=3"]) == 2
    assert "leave out --scale, --rl.sac.batch" in capsys.readouterr().err
    assert main(["pipeline", "--resume", str(tmp_path / "run"), "--open-vault"]) == 2
    assert "leave out --open-vault" in capsys.readouterr().err


def test_values_may_follow_a_space_or_an_equals_sign():
    words = ["--scale", "smoke", "--rl.sac.batch=3", "--data.drift", "-0.001", "--seed", "4", "--json", "--run-dir=a=b"]
    flags, knobs = _parse(VERBS["pipeline"], words)
    assert flags == {"scale": "smoke", "json": "", "run-dir": "a=b"}
    assert knobs == {"rl.sac.batch": "3", "data.drift": "-0.001", "seed": "4"}


def test_an_error_of_ours_is_found_behind_what_carried_it():
    ours = DataError("no price column")
    carried = RuntimeError("task failed")
    carried.__cause__ = ours
    outer = RuntimeError("stage failed")
    outer.__cause__ = carried
    assert _known_cause(outer) is ours
    assert _known_cause(ours) is ours
    assert _known_cause(RuntimeError("not ours")) is None
    assert isinstance(_known_cause(ModelError("x")), ModelError)


def test_an_error_in_a_ray_task_comes_out_as_one_of_ours(ray_session):
    import ray

    @ray.remote
    def read() -> None:
        raise ConfigError("--data.path is 'x'; expected a folder")

    with pytest.raises(ConfigError) as caught:
        ray.get(read.remote())
    assert str(_known_cause(caught.value)) == "--data.path is 'x'; expected a folder"


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_job_is_the_same_door(verb):
    words = [sys.executable, "-m", f"jobs.{re.sub('[- ]', '_', verb)}", "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert f"usage: rlaif {verb}" in done.stdout


def commands():
    """Verb and words after it of each command of ours that a document shows; what stands behind a # is left out."""
    found = []
    for file in GUIDES:
        text = file.read_text().replace("\\\n", " ")
        shown = "".join(re.findall(r"^```console\n(.*?)^```", text, re.M | re.S)) if file.suffix == ".md" else text
        for job, after in re.findall(r"(?:^|[\s/])(?:rlaif|python -m jobs\.(\w+)) (.*?)(?:&&|$)", shown, re.M):
            words = shlex.split(after, comments=True)
            length = 2 if " ".join(words[:2]) in VERBS else 1
            verb = next(v for v in VERBS if re.sub("[- ]", "_", v) == job) if job else " ".join(words[:length])
            found.append((verb, words if job else words[length:]))
    return found


def test_every_knob_that_is_named_exists():
    """In documents, in configurations and in the program's own advice; a knob that is a mapping may be named with a key of it."""
    known = known_knobs()
    sections = "|".join(Config.model_fields)
    named = re.compile(rf"(?<![\w-])--((?:{sections})(?:\.[a-z_0-9]+)+)|(?<![\w./-])((?:{sections})(?:\.[a-z_0-9]+)+)=")
    stale = []
    for file in [*GUIDES, *sorted((ROOT / "rlaif_ray").rglob("*.py")), *sorted((ROOT / "jobs").glob("*.py"))]:
        for knob in {a or b for a, b in named.findall(file.read_text())}:
            mapping, _, _ = knob.rpartition(".")
            if knob not in known and not (mapping in known and isinstance(known[mapping][0], dict)):
                stale.append(f"{file.relative_to(ROOT)}: {knob}")
    assert not stale


@pytest.mark.parametrize(("verb", "words"), commands())
def test_every_command_that_is_shown_is_taken(verb, words, monkeypatch):
    """As far as flags and knobs go; a file that its reader brings is not there."""
    monkeypatch.chdir(ROOT)
    if "--help" in words:
        return
    flags, knobs = _parse(VERBS[verb], words)
    file = flags.get("config")
    if VERBS[verb].takes_knobs:
        source = {"type": "alpaca"} if verb == "stream" else None
        load_config(flags.get("scale"), file if file and Path(file).is_file() else None, knobs, source)
