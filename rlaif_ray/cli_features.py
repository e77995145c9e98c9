"""What the `rlaif` command does with features: list the catalogue, build sets into the lake. Heavy imports wait until they are needed."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlaif_ray.cli_lake import show_progress
from rlaif_ray.errors import ConfigError, MissingDataError, did_you_mean

if TYPE_CHECKING:
    from rlaif_ray.features.family import FeatureSpec


def list_features(flags: dict[str, str], knobs: dict[str, str]) -> None:
    """Every column of the sets asked for (default: of all), with what it is made from and who says so."""
    from rlaif_ray.config import load_config
    from rlaif_ray.features.catalog import SETS, Catalog

    parameters = load_config(None, None, knobs).features.parameters
    catalog = Catalog(_words(flags.get("sets")) or SETS, parameters)
    rows = [_row(name, spec) for name in catalog.sets for spec in catalog.specs(name)]
    if "json" in flags:
        print(json.dumps(rows, indent=1))
        return
    for name in catalog.sets:
        of_set = [row for row in rows if row["set"] == name]
        print(f"{name}: {len(of_set)} columns in {catalog.table(name)}")
        width = max(len(row["name"]) for row in of_set)
        for row in of_set:
            source = f" [{row['source']}]" if row["source"] else ""
            print(f"  {row['name']:<{width}}  {row['unit']:<7} {row['look_back_bars']:>4} bars  {row['help']}{source}")
    print(f"{len(rows)} columns of {len(catalog.sets)} sets; look-back in bars; periods: --features.parameters.FAMILY='[[...], ...]'")


def _row(set_name: str, spec: FeatureSpec) -> dict[str, Any]:
    formula = f"{spec.formula.__module__.removeprefix('rlaif_ray.')}.{getattr(spec.formula, '__qualname__', spec.family)}"
    return {
        "name": spec.name, "set": set_name, "family": spec.family, "parameters": list(spec.parameters), "inputs": list(spec.inputs),
        "look_back_bars": spec.look_back_bars, "unit": spec.unit, "kind": spec.kind, "missing": spec.missing, "help": spec.help,
        "source": spec.source, "function": formula,
    }  # fmt: skip


def build_features(flags: dict[str, str], knobs: dict[str, str]) -> None:
    """Feature sets of a dataset that was ingested before, into its tables."""
    from rlaif_ray.config import load_config

    sets = {"features.sets": json.dumps(_words(flags["sets"]))} if "sets" in flags else {}
    config = load_config(None, flags.get("config"), {**knobs, **sets})
    from rlaif_ray.data.files import sectors_of
    from rlaif_ray.data.lake import Lake, datasets
    from rlaif_ray.data.receipts import latest
    from rlaif_ray.features.catalog import Catalog

    lake = Lake(config.lake.uri, config.dataset)
    catalog, sectors = Catalog(config.features.sets, config.features.parameters).completed(), sectors_of(config.features.universe)
    if "bars" not in lake.tables():
        known = datasets(config.lake.uri)
        hint = did_you_mean(lake.dataset, known) or " Name one with --data.dataset, or ingest first."
        raise MissingDataError(f"no bars in {lake.uri}/{lake.dataset}; datasets there: {', '.join(known) or 'none'}.{hint}")
    symbols = sorted(lake.files("bars")["symbol"].unique())
    ingested = latest(lake)
    from rlaif_ray.features.on_ray import build

    show_progress()
    built = build(
        lake, symbols, catalog, price_kind="raw" if ingested is None else ingested.price_kind, start=config.data.start, end=config.data.end,
        sectors=sectors,
    )  # fmt: skip
    told = {"symbols": len(symbols), **asdict(built)}
    if "json" in flags:
        print(json.dumps(told))
        return
    print(f"{lake.uri}/{lake.dataset}")
    words = {
        "symbols": len(symbols), "tables": ", ".join(catalog.table(name) for name in catalog.sets), "columns": len(built.names),
        "absent, for no symbol has their inputs": ", ".join(built.absent), "rows of the sets of one symbol": built.rows,
        "rows added, of all sets": built.added, "tables of a symbol that nothing was read for": built.untouched,
        "rewritten (* is all symbols)": ", ".join(built.rewritten), "data_version": built.data_version,
    }  # fmt: skip
    print("\n".join(f"  {name}: {value}" for name, value in words.items() if value != ""))


def score_text(flags: dict[str, str], knobs: dict[str, str]) -> None:
    """What a text model says of a dataset's documents; with `--csv`, how often it agrees with labels given by hand."""
    from rlaif_ray.config import load_config

    config = load_config(None, flags.get("config"), knobs)
    section = config.text
    if "csv" in flags:
        from rlaif_ray.text import build
        from rlaif_ray.text.accuracy import accuracy

        found = accuracy(build(section.model, section.weights, device=section.device, batch=section.batch), flags["csv"])
        if "json" in flags:
            print(json.dumps(asdict(found)))
            return
        print(f"{found.model}: {found.n} texts, accuracy {found.accuracy:.3f}, macro-F1 {found.macro_f1:.3f}")
        for label, of in found.classes.items():
            print(f"  {label:<8} {of.n:>6} texts  precision {of.precision:.3f}  recall {of.recall:.3f}  F1 {of.f1:.3f}")
        return
    from rlaif_ray import ray_runtime
    from rlaif_ray.data.lake import Lake
    from rlaif_ray.text.on_ray import Reader, read_texts

    lake, reader = Lake(config.lake.uri, config.dataset), Reader(**section.model_dump())
    if not {"documents", "mentions"} <= set(lake.tables()):
        raise MissingDataError(
            f"no documents in {lake.uri}/{lake.dataset}; expected some: rlaif ingest --facts.type=documents, --data.dataset=NAME"
        )
    show_progress()
    ray_runtime.attach()
    told = asdict(read_texts(lake, reader))
    print(json.dumps(told) if "json" in flags else "\n".join([f"{lake.uri}/{lake.dataset}", *(f"  {k}: {v}" for k, v in told.items())]))


def sample_book(flags: dict[str, str], knobs: dict[str, str]) -> None:
    """Columns of recorded order books, from files of stamped JSON lines into the table `features_order_book`."""
    from rlaif_ray.config import load_config

    config = load_config(None, flags.get("config"), knobs)
    for needed in ("file", "symbol"):
        if needed not in flags:
            raise ConfigError(f"sample-book needs --{needed}; expected --file PATH (or a glob) and the --symbol that its rows go under")
    if config.data.dataset is None:
        raise ConfigError("name the dataset that the columns go to, --data.dataset=NAME")
    every, gaps = flags.get("every-ms", "1000"), flags.get("gaps", "refuse")
    if not every.isdigit() or not int(every):
        raise ConfigError(f"--every-ms is {every!r}; expected whole milliseconds, at least 1")
    if gaps not in ("refuse", "restart"):
        raise ConfigError(f"--gaps is {gaps!r}; expected refuse or restart")
    from pathlib import Path

    path = Path(flags["file"]).expanduser()
    files = sorted(path.parent.glob(path.name))
    if not files:
        raise MissingDataError(f"no order-book stream at {path}; expected a file of stamped JSON lines, plain or .gz, or a glob of them")
    from rlaif_ray import ray_runtime
    from rlaif_ray.data.lake import Lake
    from rlaif_ray.features.books_on_ray import sample_books
    from rlaif_ray.features.catalog import Catalog

    lake, catalog = Lake(config.lake.uri, config.data.dataset), Catalog(("order_book",), config.features.parameters)
    show_progress()
    ray_runtime.attach()
    rows, added = sample_books(lake, files, flags["symbol"], every_ms=int(every), gaps=gaps, catalog=catalog)
    print(f"{lake.uri}/{lake.dataset}\n  files: {len(files)}\n  rows: {rows}\n  added: {added}\n  columns: {len(catalog.names())}")


def _words(text: str | None) -> tuple[str, ...]:
    """`a,b` of a flag; nothing where it is not given."""
    words = tuple(word.strip() for word in (text or "").split(",") if word.strip())
    if text is not None and not words:
        raise ConfigError("a list of names is empty; expected names with commas between them, such as technical,core_31")
    return words
