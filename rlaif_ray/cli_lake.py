"""What the `rlaif` command does with the lake: take in, show, check, compact. Heavy imports wait until they are needed."""

from __future__ import annotations

import datetime as dt
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlaif_ray.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from rlaif_ray.config import Config
    from rlaif_ray.config_data import FactsConfig
    from rlaif_ray.data.lake import Lake


def take_in(flags: dict[str, str], knobs: dict[str, str]) -> int:
    """Bars, or facts and documents. 1 where something could not be read: it is named, and the rest has come in."""
    from rlaif_ray.config import load_config

    config = load_config(None, flags.get("config"), knobs, {"bad_rows": "quarantine"})
    if config.facts is not None and config.data.dataset is None:
        raise ConfigError("facts go beside bars: name the dataset that they belong to, --data.dataset=NAME")
    from rlaif_ray.data.lake import Lake

    show_progress()
    lake = Lake(config.lake.uri, config.dataset)
    failed, told = _bars(config, lake) if config.facts is None else _facts(config.facts, lake)
    if "json" in flags:
        print(json.dumps(told, default=str))
    else:
        print("\n".join([f"{lake.uri}/{lake.dataset}", *(f"  {name}: {value}" for name, value in told.items() if name != "failed")]))
    print("\n".join(f"not read: {why}" for why in failed.values()), file=sys.stderr, end="\n" * bool(failed))
    return 1 if failed else 0


def _bars(config: Config, lake: Lake) -> tuple[dict[str, str], dict[str, Any]]:
    from rlaif_ray.data.receipts import known
    from rlaif_ray.data.sources_on_ray import build

    section = config.data
    source, terms = build(section), {
        "start": section.start, "end": section.end, "latency_s": section.latency_s, "bad_rows": section.bad_rows
    }  # fmt: skip
    done = known(source, lake, **terms)
    if done is None:
        from rlaif_ray import ray_runtime
        from rlaif_ray.data.on_ray import ingest

        ray_runtime.attach()
        done = ingest(source, lake, **terms, least=1)
    counts: dict[str, int] = {}
    for report in done.quality.values():
        for name, count in report.items():
            if isinstance(count, int) and not isinstance(count, bool) and name != "rows":
                counts[name] = counts.get(name, 0) + count
    told = {"symbols": len(done.symbols), "rows": done.rows, "prices": done.price_kind, "data_version": done.data_version}
    return done.failed, {**told, **{name: count for name, count in counts.items() if count}, "failed": done.failed}


def stream(flags: dict[str, str], knobs: dict[str, str]) -> None:
    """Bars as they are made, until Ctrl-C, SIGTERM or the end of the time given."""
    import signal
    import threading
    import time

    from rlaif_ray.config import load_config
    from rlaif_ray.config_data import AlpacaData

    config = load_config(None, flags.get("config"), knobs, {"type": "alpaca"})
    if not isinstance(config.data, AlpacaData):
        raise ConfigError(f"--data.type is {config.data.type!r}; a stream needs alpaca, whose REST door fills its gaps")
    if config.data.dataset is None:
        raise ConfigError("a stream goes on where a dataset ends: name it, --data.dataset=NAME")
    for knob in ("start", "end", "days"):
        if (span := getattr(config.data, knob)) is not None:
            raise ConfigError(f"--data.{knob} is {span}; a stream goes on from where the dataset ends until it is stopped: leave it out")
    ends = time.monotonic() + _seconds(flags.get("for"))
    from rlaif_ray.data import build, vendors
    from rlaif_ray.data.alpaca import AlpacaSource
    from rlaif_ray.data.lake import Lake
    from rlaif_ray.data.live import listen

    source, lake, stop = build(config.data), Lake(config.lake.uri, config.data.dataset), threading.Event()
    assert isinstance(source, AlpacaSource)
    vendor = vendors.named(flags.get("vendor", "alpaca"), config.data.feed, flags.get("url"))

    def end(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)  # who asks twice does not want to wait

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    show_progress()
    try:
        rows = listen(
            source, vendor, lake, lambda: stop.is_set() or time.monotonic() > ends, latency_s=config.data.latency_s, sleep=stop.wait
        )  # fmt: skip
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    print(f"{lake.uri}/{lake.dataset}\n  rows: {rows}")


def _seconds(minutes: str | None) -> float:
    """Of `--for`."""
    if minutes is None:
        return float("inf")
    try:
        value = float(minutes)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise ConfigError(f"--for is {minutes!r}; expected minutes above 0")
    return 60.0 * value


def _facts(section: FactsConfig, lake: Lake) -> tuple[dict[str, str], dict[str, Any]]:
    from rlaif_ray import ray_runtime
    from rlaif_ray.data import build_facts
    from rlaif_ray.data.facts_on_ray import take_facts

    source = build_facts(section)
    ray_runtime.attach()
    done = take_facts(source, lake)
    return done.failed, asdict(done)


def show_progress() -> None:
    """What the library logs, on standard error: for reading on a terminal, plain lines elsewhere."""
    import logging

    if sys.stderr.isatty():
        from rich.logging import RichHandler

        handler: logging.Handler = RichHandler(show_level=False, show_path=False)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("rlaif_ray")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def show_status(flags: dict[str, str], knobs: dict[str, str]) -> None:
    from rlaif_ray.data.housekeeping import status

    def cell(value: object) -> str:
        return "-" if value is None else f"{value:%Y-%m-%d %H:%M}" if isinstance(value, dt.datetime) else str(value)

    for lake in _lakes(flags):
        frame = status(lake)
        lines = [frame.columns, *([cell(v) for v in row] for row in frame.iter_rows())]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        print(f"{lake.uri}/{lake.dataset}")
        print("\n".join("  " + "  ".join(f"{v:<{w}}" for v, w in zip(line, widths, strict=True)).rstrip() for line in lines))


def check_whole(flags: dict[str, str], knobs: dict[str, str]) -> int:
    from rlaif_ray.data.housekeeping import verify

    lakes = _lakes(flags)
    problems = [problem for lake in lakes for problem in verify(lake)]
    print("\n".join(problems or [f"{sum(len(lake.tables()) for lake in lakes)} tables of {len(lakes)} datasets are whole"]))
    return 1 if problems else 0


def make_compact(flags: dict[str, str], knobs: dict[str, str]) -> None:
    from rlaif_ray.data.housekeeping import compact

    for lake in _lakes(flags):
        gone = compact(lake)
        said = [f"{table}: {files} files became few" for table, files in gone.items()] or ["no partition has over 20 files"]
        print("\n".join(f"{lake.dataset}/{line}" if gone else f"{lake.dataset}: {line}" for line in said))


def _lakes(flags: dict[str, str]) -> list[Lake]:
    """The dataset that the flags name, or all that lie in the lake."""
    from rlaif_ray.data.lake import Lake, datasets
    from rlaif_ray.errors import MissingDataError

    if "lake" not in flags:
        raise ConfigError("this needs --lake URI, the folder or object store that `rlaif pipeline --lake.uri` wrote to")
    known = datasets(flags["lake"])
    wanted = flags.get("dataset")
    if not known or (wanted is not None and wanted not in known):
        near = did_you_mean(wanted or "", known)
        raise MissingDataError(f"no dataset{f' {wanted!r}' if wanted else ''} in {flags['lake']}; it has {known}.{near}")
    return [Lake(flags["lake"], name) for name in ([wanted] if wanted else known)]


def config_of_run(flags: dict[str, str], knobs: dict[str, str], own: dict[str, str]) -> Config:
    """What a run that starts from a source is configured by: the run's own config where it goes on, else preset, file and knobs.

    `own` : knobs that the verb's undotted flags stand for.
    """
    from rlaif_ray.config import load_config
    from rlaif_ray.runs import Run

    show_progress()
    resume = flags.get("resume")
    if resume is not None:
        clash = [f"--{n}" for n in flags if n not in ("resume", "json")] + [f"--{k}" for k in knobs]
        if clash:
            raise ConfigError(f"--resume goes on with the run's own config; leave out {', '.join(clash)}, or start a new run")
        config = Run.open(resume).config
    else:
        config = load_config(flags.get("scale"), flags.get("config"), knobs | own)
    if config.facts is not None:
        raise ConfigError(f"--facts.type {config.facts.type}: a run reads the lake; take facts in first, with rlaif ingest")
    return config
