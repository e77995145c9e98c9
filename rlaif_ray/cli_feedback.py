"""What the `rlaif` command does with opinions once they are given: follow them until they close, take people's word on them."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlaif_ray.cli_lake import show_progress
from rlaif_ray.errors import ConfigError, MissingDataError, did_you_mean

if TYPE_CHECKING:
    import numpy as np

    from rlaif_ray.config import Config
    from rlaif_ray.core import Opinion
    from rlaif_ray.data.lake import Lake
    from rlaif_ray.feedback.tracker_on_ray import Market, Tracked

CHANNEL = "command line"


def track(flags: dict[str, str], knobs: dict[str, str]) -> None:
    """Close the opinions of a dataset whose horizon has passed; with `--follow`, as bars come, until Ctrl-C or SIGTERM."""
    every = _seconds(flags)
    from rlaif_ray import ray_runtime
    from rlaif_ray.feedback import tracker_on_ray as tracker
    from rlaif_ray.plan import outcome_terms, terms_of

    config, market, sectors = _of_run(flags, knobs) if "run" in flags else _of_dataset(flags, knobs)
    lake = market.lake
    show_progress()
    ray_runtime.attach()

    def one_pass() -> Tracked:
        cube = market.settled()
        return tracker.track(lake, cube, outcome_terms(config, terms_of(config, cube, sectors)), again="again" in flags)

    def tell(done: Tracked) -> None:
        print(json.dumps(asdict(done)) if "json" in flags else _told(lake, done), flush=True)

    if "follow" not in flags:
        tell(one_pass())
        return
    import signal
    import threading

    stop = threading.Event()

    def end(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)  # who asks twice does not want to wait

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        tracker.follow(lake, one_pass, stop.is_set, every_s=every, sleep=stop.wait, tell=tell)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _seconds(flags: dict[str, str]) -> float:
    """Of `--every`."""
    if "every" in flags and "follow" not in flags:
        raise ConfigError("--every says how often to look while following; add --follow, or leave it out")
    text = flags.get("every", "60")
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise ConfigError(f"--every is {text!r}; expected seconds above 0")
    return value


def _of_run(flags: dict[str, str], knobs: dict[str, str]) -> tuple[Config, Market, dict[str, str]]:
    """A finished run's own terms, universe and lake, with the newest bars of it; what its desk said is taken in first."""
    clash = [f"--{n}" for n in ("lake", "dataset", "config") if n in flags] + [f"--{k}" for k in knobs]
    if clash:
        raise ConfigError(f"--run tracks the run's dataset on the run's terms; leave out {', '.join(clash)}")
    from pathlib import Path

    from rlaif_ray.artefacts import load_dataset
    from rlaif_ray.feedback.tracker_on_ray import Market, take_in
    from rlaif_ray.runs import Run

    run = Run.open(flags["run"])
    data = load_dataset(Path(flags["run"]))
    take_in(data.lake, run.path)
    return run.config, Market(data.lake, data.symbols, data.price_kind, data.bars_per_year, data.start), data.sectors


def _of_dataset(flags: dict[str, str], knobs: dict[str, str]) -> tuple[Config, Market, dict[str, str]]:
    from rlaif_ray.config import load_config

    own = {"lake": "lake.uri", "dataset": "data.dataset"}
    config = load_config(None, flags.get("config"), knobs | {knob: flags[flag] for flag, knob in own.items() if flag in flags})
    if config.data.dataset is None:
        raise ConfigError("name what is tracked: --dataset NAME (and --lake URI), or --run RUN for a finished run")
    from rlaif_ray.data.files import sectors_of
    from rlaif_ray.feedback.tracker_on_ray import Market

    lake = _known(config.lake.uri, config.data.dataset)
    if "bars" not in lake.tables():
        raise MissingDataError(f"no bars in {lake.uri}/{lake.dataset} to judge opinions by; take them in first, with rlaif ingest")
    return config, Market.of(lake), sectors_of(config.features.universe)


def _told(lake: Lake, done: Tracked) -> str:
    words = {
        "opinions": done.opinions, "open": done.open, "closed now": done.closed, "void": sum(done.void.values()),
        **{f"  {why}": count for why, count in done.void.items()}, "until": done.until,
    }  # fmt: skip
    if done.restated:
        words["said again otherwise (the first word counts)"] = done.restated
    return "\n".join([f"{lake.uri}/{lake.dataset}", *(f"  {name}: {value}" for name, value in words.items())])


def add(flags: dict[str, str], knobs: dict[str, str]) -> None:
    """A person's word that one opinion is better than another, into quarantine."""
    _need(flags, "feedback add", ("lake", "dataset", "chosen", "rejected", "by"))
    from rlaif_ray.data.human_labels import add_label
    from rlaif_ray.data.opinions import opinions

    lake = _known(flags["lake"], flags["dataset"])
    _check(opinions(lake, {flags["chosen"], flags["rejected"]}), flags)
    label = add_label(
        lake, flags["chosen"], flags["rejected"], by=flags["by"], channel=CHANNEL, note=flags.get("note", ""), given_at=_now()
    )
    print(f"label: {label.id}\nin quarantine until somebody else accepts it: rlaif feedback review --label {label.id}")


def review(flags: dict[str, str], knobs: dict[str, str]) -> None:
    """A second person's word on a label."""
    _need(flags, "feedback review", ("lake", "dataset", "label", "by", "verdict"))
    from rlaif_ray.data.human_labels import add_review
    from rlaif_ray.feedback.human import VERDICTS, Review

    given = flags["verdict"]
    if given not in VERDICTS:
        raise ConfigError(f"--verdict is {given!r}; expected {' or '.join(VERDICTS)}.{did_you_mean(given, VERDICTS)}")
    verdict = VERDICTS[VERDICTS.index(given)]
    said = Review(flags["label"], _now(), flags["by"], verdict, flags.get("reason", ""))
    add_review(_known(flags["lake"], flags["dataset"]), said)
    print(f"review: {said.id}\n{'released' if verdict == 'accept' else 'held'} from {said.at}Z on: label {said.label}")


def show(flags: dict[str, str], knobs: dict[str, str]) -> None:
    """Labels with where they stand; with `--symbol` the opinions on it that a label may name."""
    _need(flags, "feedback list", ("lake", "dataset"))
    lake = _known(flags["lake"], flags["dataset"])
    if "symbol" in flags:
        from rlaif_ray.data.opinions import opinions_on

        said = opinions_on(lake, flags["symbol"], _moment(flags))
        rows = [
            {
                "id": key, "as_of": f"{o.as_of}Z", "voice": o.voice.name, "horizon_bars": o.horizon_bars, "p_up": o.p_up,
                "narrative": o.narrative,
            }
            for key, o in said.items()
        ]  # fmt: skip
    else:
        rows = _labels(lake)
    if "json" in flags:
        print(json.dumps(rows, indent=1))
    else:
        print("\n".join("  ".join(str(value) for value in row.values()) for row in rows) or "none")


def _labels(lake: Lake) -> list[dict[str, Any]]:
    from rlaif_ray.data import human_labels
    from rlaif_ray.feedback.human import released

    given, reviewed = human_labels.labels(lake), human_labels.reviews(lake)
    release = released(given, reviewed, as_of=_now())
    free = {one.label.id: f"released by {one.review.by} at {one.usable_from}Z" for one in release.labels}
    return [
        {
            "id": x.id, "state": free.get(x.id) or f"held: {release.held[x.id]}", "given_at": f"{x.given_at}Z", "by": x.by,
            "channel": x.channel, "symbol": x.symbol, "as_of": f"{x.as_of}Z", "chosen": x.chosen, "rejected": x.rejected, "note": x.note,
        }
        for x in given
    ]  # fmt: skip


def _check(named: dict[str, Opinion], flags: dict[str, str]) -> None:
    """What the flags say of the opinions beside their ids must be so: an id is easily mistyped."""
    asked = _moment(flags)
    for key, o in named.items():
        if flags.get("symbol", o.symbol) != o.symbol:
            raise ConfigError(f"--symbol is {flags['symbol']!r}, but opinion {key} is on {o.symbol!r}; expected opinions on one symbol")
        if asked is not None and asked != o.as_of.astype("datetime64[us]").item().replace(tzinfo=dt.UTC):
            raise ConfigError(f"--as-of is {flags['as-of']}, but opinion {key} was given as of {o.as_of}Z; expected opinions of one moment")


def _moment(flags: dict[str, str]) -> dt.datetime | None:
    """Of `--as-of`."""
    if "as-of" not in flags:
        return None
    try:
        moment = dt.datetime.fromisoformat(flags["as-of"])
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigError(f"--as-of is {flags['as-of']!r}; expected a moment with its zone, such as 2020-01-02T21:00:00Z")
    return moment.astimezone(dt.UTC)


def _need(flags: dict[str, str], verb: str, names: tuple[str, ...]) -> None:
    lost = [f"--{name}" for name in names if name not in flags]
    if lost:
        raise ConfigError(f"{verb} needs {', '.join(lost)}; `rlaif {verb} --help` says what each is")


def _known(uri: str, dataset: str) -> Lake:
    """A dataset that there is: a new one would take a mistyped name for its own."""
    from rlaif_ray.data.lake import Lake, datasets

    known = datasets(uri)
    if dataset not in known:
        raise MissingDataError(f"no dataset {dataset!r} in {uri}; it has {known}.{did_you_mean(dataset, known)}")
    return Lake(uri, dataset)


def _now() -> np.datetime64:
    import numpy as np

    return np.datetime64(dt.datetime.now(dt.UTC).replace(tzinfo=None), "us")
