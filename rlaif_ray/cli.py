"""The `rlaif` command: `rlaif <verb> [--flag value] [--section.knob=value]`; what looks after the lake is `rlaif data <verb>`.

Exit 0 done; 2 the user's mistake, one line; 1 a failure. Everything heavy is imported after parsing, so help is quick.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlaif_ray import __version__, cli_features, cli_feedback, cli_lake, cli_thesis, ray_runtime
from rlaif_ray.errors import ConfigError, DataError, RlaifError, did_you_mean


@dataclass(frozen=True)
class Flag:
    """`value` names what follows the flag in the help; a switch has none."""

    value: str | None
    help: str


@dataclass(frozen=True)
class Verb:
    help: str
    flags: dict[str, Flag]
    takes_knobs: bool
    act: Callable[[dict[str, str], dict[str, str]], int | None]  # (flags, knobs); the exit code, if not 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    ray_runtime.set_environment()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except Exception as error:
        known = _known_cause(error)
        if known is None:
            raise
        print(f"error: {' '.join(str(known).split())}", file=sys.stderr)
        return 2 if isinstance(known, (ConfigError, DataError)) else 1


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(__version__)
        return 0
    # Some verbs are two words.
    length = 1 + any(verb.startswith(f"{words[0]} ") for verb in VERBS)
    name, rest = " ".join(words[:length]), words[length:]
    if rest == [] and words[-1] in ("-h", "--help"):
        print(_overview())
        return 0
    if name not in VERBS:
        raise ConfigError(f"unknown verb {name!r}; expected one of {', '.join(VERBS)}.{did_you_mean(name, VERBS)}")
    verb = VERBS[name]
    if "-h" in rest or "--help" in rest:
        print(_verb_help(name, verb))
        return 0
    return verb.act(*_parse(verb, rest)) or 0


def _parse(verb: Verb, words: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Flags of the verb, and knobs of the config (`--seed` and whatever has a dot), both as text."""
    flags: dict[str, str] = {}
    knobs: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            raise ConfigError(f"unexpected {word!r}; expected --flag value or --section.knob=value")
        name, equals, value = word[2:].partition("=")
        flag = verb.flags.get(name)
        is_knob = verb.takes_knobs and ("." in name or name == "seed")
        if flag is None and not is_knob:
            raise ConfigError(_unknown_flag(name, verb))
        if flag is not None and flag.value is None:
            if equals:
                raise ConfigError(f"--{name} is a switch and takes no value; got {value!r}")
        elif not equals:
            value = next(rest, None)
            if value is None:
                raise ConfigError(f"--{name} needs a value")
        (knobs if is_knob else flags)[name] = value
    return flags, knobs


def _unknown_flag(name: str, verb: Verb) -> str:
    near = did_you_mean(f"--{name}", [f"--{f}" for f in verb.flags])
    if verb.takes_knobs:
        from rlaif_ray.config import known_knobs

        leaves = {knob.rpartition(".")[2]: knob for knob in known_knobs()}
        near = f" Did you mean '--{leaves[name]}'?" if name in leaves else near
    return f"unknown flag --{name}; expected one of {', '.join(f'--{f}' for f in verb.flags)}{' or a knob' * verb.takes_knobs}.{near}"


def _known_cause(error: BaseException) -> RlaifError | None:
    """The error of ours behind `error`: Ray hands on what a task raised wrapped, with the original as its cause."""
    seen: set[int] = set()
    queue: list[BaseException] = [error]
    while queue:
        current = queue.pop(0)
        inner = [e for e in (getattr(current, "cause", None), current.__cause__) if isinstance(e, BaseException)]
        if isinstance(current, RlaifError) and not any(isinstance(e, RlaifError) for e in inner):
            return current
        seen.add(id(current))
        queue += [e for e in inner if id(e) not in seen]
    return None


VAULT = {"open-vault": "open", "break-vault": "broken"}


def _pipeline(flags: dict[str, str], knobs: dict[str, str]) -> None:
    asked = [state for flag, state in VAULT.items() if flag in flags]
    config = cli_lake.config_of_run(flags, knobs, {"backtest.vault": asked[-1]} if asked else {})
    from rlaif_ray.pipeline import run_pipeline
    from rlaif_ray.report import summary_text

    run, result = run_pipeline(config, flags.get("run-dir"), flags.get("resume"))
    _print_run(run.path, flags, lambda trials: summary_text(result, trials=trials))


def _improve(flags: dict[str, str], knobs: dict[str, str]) -> None:
    config = cli_lake.config_of_run(flags, knobs, {"improve.cycles": flags["cycles"]} if "cycles" in flags else {})
    from rlaif_ray.improve import improve
    from rlaif_ray.improve_report import summary_text

    run, result = improve(config, flags.get("run-dir"), flags.get("resume"))
    _print_run(run.path, flags, lambda trials: summary_text(result, trials=trials))


def _sweep(flags: dict[str, str], knobs: dict[str, str]) -> None:
    config = cli_lake.config_of_run(flags, knobs, {"sweep.trials": flags["trials"]} if "trials" in flags else {})
    from rlaif_ray.sweep import BEST, run_sweep, summary_text

    run, result = run_sweep(config, flags.get("run-dir"), flags.get("resume"))
    folder = run.path.resolve()
    if "json" in flags:
        sys.stdout.write((folder / "result.json").read_text())
        print(f"run: {folder}", file=sys.stderr)
    else:
        print(f"{summary_text(result)}\n\nknobs for --config: {folder / BEST}\nrun: {folder}")


def _print_run(path: Path, flags: dict[str, str], summary: Callable[[int], str]) -> None:
    """What a run found, and where it lies: in full, for a submitted job runs in a folder that nobody would guess."""
    folder = path.resolve()
    if "json" in flags:
        # Standard output is then result.json and nothing else, so that it can be piped.
        sys.stdout.write((folder / "result.json").read_text())
        print(f"run: {folder}", file=sys.stderr)
        return
    print(summary(json.loads((folder / "verdict.json").read_text())["trials"]))
    print(f"\nreport: {folder / 'report.html'}\nrun: {folder}")


def _validate(flags: dict[str, str], knobs: dict[str, str]) -> None:
    if "run" not in flags:
        raise ConfigError("validate needs --run RUN, the directory that `rlaif pipeline` printed as its last line")
    from rlaif_ray.gate_report import summary_text
    from rlaif_ray.validate import validate

    cli_lake.show_progress()
    run, verdicts = validate(flags["run"], membership=flags.get("membership"), cross_validated="cross-validate" in flags)
    folder = run.path.resolve()
    if "json" in flags:
        sys.stdout.write((folder / "verdict.json").read_text())
        print(f"run: {folder}", file=sys.stderr)
        return
    print(f"{summary_text(run.read_result(), verdicts)}\n\npage: {folder / 'validation.html'}\nrun: {folder}")


def _serve(flags: dict[str, str], knobs: dict[str, str]) -> None:
    if "run" not in flags:
        raise ConfigError("serve needs --run RUN, the directory that `rlaif pipeline` printed as its last line")
    port = flags.get("port", "8000")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"--port is {port!r}; expected a number from 1 to 65535")
    from rlaif_ray.runs import Run

    run = Run.open(Path(flags["run"]).resolve(), "pipeline")
    from rlaif_ray.serve.app import serve_run

    def ready(address: str) -> None:
        print(f"serving {run.path} at {address}: POST /predict, GET /health, GET /docs; Ctrl-C ends it", flush=True)

    serve_run(str(run.path), host=flags.get("host", "127.0.0.1"), port=int(port), ready=ready)


_LAKE = {
    "lake": Flag("URI", "The lake: what --lake.uri of the pipeline named."),
    "dataset": Flag("NAME", "One dataset of it; default: all."),
}

_TOLD = {"lake": Flag("URI", "The lake: what --lake.uri of the pipeline named."), "dataset": Flag("NAME", "The dataset in it.")}
_RUN = {
    "scale": Flag("NAME", "Preset of sizes and budgets: smoke (minutes), laptop (an hour), cluster, signal-test."),
    "config": Flag("FILE", "YAML file of knobs, laid over the preset."),
    "run-dir": Flag("DIR", "Where to write; default runs/<verb>-<UTC time>. On a cluster: storage that all nodes see."),
    "resume": Flag("RUN", "Go on with an unfinished run: committed stages are not done again."),
    "json": Flag(None, "Print result.json on standard output, and nothing else."),
}

VERBS: dict[str, Verb] = {
    "pipeline": Verb(
        "bars -> features -> forecasts -> opinions -> policy -> walk-forward backtest -> report, and a model to serve",
        {
            **_RUN,
            "open-vault": Flag(None, "Test in the vault, which a configuration may do once: the ledger remembers."),
            "break-vault": Flag(None, "Open it though the configuration did before; the result says so."),
        },
        True,
        _pipeline,
    ),
    "improve": Verb(
        "opinions -> closed outcomes -> pairs -> reward model -> better verdicts, turn by turn, kept only where unseen dates say so",
        {**_RUN, "cycles": Flag("N", "Turns, each judged on a block of dates of its own; default 3.")},
        True,
        _improve,
    ),
    "sweep": Verb(
        "try knobs of the direct policy by Ray Tune, on rows before every test block; leaves best.yaml for --config",
        {**_RUN, "trials": Flag("N", "Draws from --sweep.space; default 16.")},
        True,
        _sweep,
    ),
    "train-thesis": Verb(
        "teach the small thesis policy, by its teacher and then by reward, and test it on short folds: a table, and policies to use",
        _RUN,
        True,
        cli_thesis.train,
    ),
    "track": Verb(
        "close the opinions of a dataset whose horizon has passed, once each; with --follow as bars come in",
        {
            **_TOLD,
            "run": Flag("RUN", "A finished run: its dataset, terms and universe; what its desk said is taken in first."),
            "config": Flag("FILE", "YAML file of knobs."),
            "follow": Flag(None, "Go on until Ctrl-C or SIGTERM."),
            "every": Flag("SECONDS", "How often to look while following; default 60."),
            "again": Flag(None, "Judge what has an outcome too: one that comes out otherwise becomes a revision."),
            "json": Flag(None, "Print as JSON, a line a pass."),
        },
        True,
        cli_feedback.track,
    ),
    "feedback add": Verb(
        "a person's word that one opinion is better than another, into quarantine",
        {
            **_TOLD,
            "chosen": Flag("ID", "The better opinion; `rlaif feedback list --symbol NAME` shows ids."),
            "rejected": Flag("ID", "The other."),
            "by": Flag("NAME", "Who says so."),
            "note": Flag("TEXT", "Why."),
            "symbol": Flag("NAME", "Checked against both opinions."),
            "as-of": Flag("TIME", "Checked against both opinions, such as 2020-01-02T21:00:00Z."),
        },
        False,
        cli_feedback.add,
    ),
    "feedback review": Verb(
        "a second person's word on a label; accepted, it is released from now on, to who learns from labels (the loop does not yet)",
        {
            **_TOLD,
            "label": Flag("ID", "The label."),
            "by": Flag("NAME", "Somebody else than who gave it."),
            "verdict": Flag("WORD", "accept or reject."),
            "reason": Flag("TEXT", "Why."),
        },
        False,
        cli_feedback.review,
    ),
    "feedback list": Verb(
        "people's labels and where they stand; with --symbol the opinions that a label may name",
        {
            **_TOLD,
            "symbol": Flag("NAME", "Opinions on it, with their ids."),
            "as-of": Flag("TIME", "Only those of this moment."),
            "json": Flag(None, "As JSON."),
        },
        False,
        cli_feedback.show,
    ),
    "validate": Verb(
        "bring the policies of a finished run before the gate: PROMOTE or REJECT, with reasons",
        {
            "run": Flag("RUN", "Directory of the run; verdict.json and validation.html are left in it."),
            "membership": Flag("FILE", "CSV of an index's members (ticker, start_date, end_date): the stress on members alone."),
            "cross-validate": Flag(None, "Add the optimiser's combinatorial purged cross-validation: 45 fits of the trees, minutes."),
            "json": Flag(None, "Print verdict.json on standard output, and nothing else."),
        },
        False,
        _validate,
    ),
    "serve": Verb(
        "answer POST /predict and GET /health with the models of a finished run",
        {
            "run": Flag("RUN", "Directory of the run."),
            "host": Flag("ADDRESS", "Address to listen on; default 127.0.0.1. There is no authentication: put a proxy before any other."),
            "port": Flag("PORT", "Port to listen on; default 8000."),
        },
        False,
        _serve,
    ),
    "ingest": Verb(
        "a source's bars, or with --facts.type its facts and documents, to the lake; exit 1 names what could not be read",
        {
            "config": Flag("FILE", "YAML file of knobs."),
            "json": Flag(None, "Print what came in as JSON on standard output, and nothing else."),
        },
        True,
        cli_lake.take_in,
    ),
    "build-features": Verb(
        "feature sets of all symbols of an ingested dataset, a table each; what stands on files that did not change is not made again",
        {
            "sets": Flag("A,B", "Which sets; default: those of --features.sets. `rlaif features list` says which there are."),
            "config": Flag("FILE", "YAML file of knobs."),
            "json": Flag(None, "Print what was made as JSON on standard output, and nothing else."),
        },
        True,
        cli_features.build_features,
    ),
    "features list": Verb(
        "every feature by set: unit, bars until it is defined, what it says, and after whom",
        {
            "sets": Flag("A,B", "Only these sets; default: all."),
            "json": Flag(None, "As JSON, with inputs, parameters and function of each."),
        },
        True,
        cli_features.list_features,
    ),
    "score-text": Verb(
        "what a text model says of a dataset's documents, which sentiment features are made from; or how right it is",
        {
            "csv": Flag("FILE", "Labelled texts instead: print accuracy and macro-F1 of the model on them."),
            "config": Flag("FILE", "YAML file of knobs."),
            "json": Flag(None, "Print as JSON on standard output, and nothing else."),
        },
        True,
        cli_features.score_text,
    ),
    "sample-book": Verb(
        "spread, depth, imbalance and order flow of a recorded order book on a grid of time, into the lake",
        {
            "file": Flag("PATH", "Binance's raw stream, plain or .gz, or a glob: lines of a local stamp in ns and the JSON as it came."),
            "symbol": Flag("NAME", "The market's name in the lake."),
            "every-ms": Flag("MS", "The grid; default 1000."),
            "gaps": Flag("WHAT", "At a break in the exchange's numbering: refuse (default), or restart at the next snapshot."),
            "config": Flag("FILE", "YAML file of knobs."),
        },
        True,
        cli_features.sample_book,
    ),
    "stream": Verb(
        "minute bars as they are made, to the dataset, until Ctrl-C; what a lost connection leaves out is asked for again",
        {
            "config": Flag("FILE", "YAML file of knobs."),
            "for": Flag("MINUTES", "End by itself after so long; default: Ctrl-C or SIGTERM ends it."),
            "vendor": Flag("NAME", "Whose stream: alpaca, or polygon (POLYGON_API_KEY), whose gaps Alpaca fills; default alpaca."),
            "url": Flag("URL", "Another address of the stream; --data.url is that of Alpaca's REST door."),
        },
        True,
        cli_lake.stream,
    ),
    "data status": Verb("what lies in a lake: symbols, span, rows, gaps, last knowledge of each table", _LAKE, False, cli_lake.show_status),
    "data verify": Verb("read all of a lake and say what is wrong with it; exit 1 if anything is", _LAKE, False, cli_lake.check_whole),
    "data compact": Verb("rewrite partitions of many files as few; what is read stays the same", _LAKE, False, cli_lake.make_compact),
}


def _overview() -> str:
    verbs = "\n".join(_entry(name, verb.help, 16) for name, verb in VERBS.items())
    return (
        f"rlaif {__version__}: learns to trade from AI feedback that the market judges\n\n"
        f"usage: rlaif VERB [--flag value] [--section.knob=value]\n\n"
        f"{verbs}\n\n`rlaif VERB --help` lists the flags and knobs of a verb."
    )


def _verb_help(name: str, verb: Verb) -> str:
    lines = [f"usage: rlaif {name} [--flag value]{' [--section.knob=value]' * verb.takes_knobs}", "", verb.help, ""]
    lines += [_entry(f"--{flag} {spec.value or ''}", spec.help, 16) for flag, spec in verb.flags.items()]
    if verb.takes_knobs:
        from rlaif_ray.config import known_knobs

        lines += ["", "knobs (defaults < --scale < --config < these):"]
        lines += [_entry(f"--{knob}", f"{text} [{_shown(default)}]".lstrip(), 32) for knob, (default, text) in known_knobs().items()]
    return "\n".join(lines)


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return "[" + ", ".join(map(str, default)) + "]"
    return "none" if default is None else str(default)


def _entry(left: str, right: str, column: int) -> str:
    """One line of help: `left`, then `right` from `column` on, wrapped under itself."""
    width = max(72, min(shutil.get_terminal_size().columns, 120))
    indent = " " * (column + 2)
    first = f"  {left:<{column}}" if len(left) < column else f"  {left}\n{indent}"
    return first + f"\n{indent}".join(textwrap.wrap(right, width - column - 2, break_on_hyphens=False))


if __name__ == "__main__":
    sys.exit(main())
