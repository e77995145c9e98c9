"""The first two stages of every run that starts from a source: bars to the lake, features beside them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlaif_ray.agents import analysts
from rlaif_ray.core import canonical_json
from rlaif_ray.data.cube import Dataset
from rlaif_ray.data.files import sectors_of
from rlaif_ray.data.lake import Lake
from rlaif_ray.data.on_ray import ingest
from rlaif_ray.data.sources_on_ray import build as build_source
from rlaif_ray.features.catalog import DEFAULT_OBSERVATION
from rlaif_ray.features.on_ray import build
from rlaif_ray.plan import catalog_of
from rlaif_ray.runs import Run


def dataset_of(run: Run) -> tuple[Dataset, dict[str, Any]]:
    """Bars and features to the lake; where to find both again, and how clean the bars were."""
    config = run.config
    source = build_source(config.data)
    lake = Lake(config.lake.uri, config.dataset)
    catalog, sectors = catalog_of(config), sectors_of(config.features.universe)
    wanted = (*(config.rl.features or DEFAULT_OBSERVATION), *analysts.reads(config.agents.roster))

    def to_lake(out: Path) -> None:
        section = config.data
        done = ingest(source, lake, start=section.start, end=section.end, latency_s=section.latency_s, bad_rows=section.bad_rows)
        (out / "ingest.json").write_text(canonical_json(asdict(done)))

    def features(out: Path) -> None:
        done = build(
            lake, said["symbols"], catalog, bars_version=said["versions"]["bars"], price_kind=said["price_kind"],
            start=config.data.start, end=config.data.end, sectors=sectors,
        )  # a dataset may hold days that another run brought
        dataset = Dataset(
            lake, {**said["versions"], **done.versions}, tuple(said["symbols"]), sectors, catalog,
            tuple(n for n in done.names if n in wanted), done.absent, said["price_kind"], said["bars_per_year"], config.data.start,
            config.data.end, said["data_version"],
        )  # fmt: skip
        (out / "dataset.json").write_text(dataset.to_json())

    slice_ = [config.data.model_dump(mode="json"), lake]
    said = json.loads((run.stage("ingest", slice_).get_or(to_lake) / "ingest.json").read_text())
    path = run.stage("features", slice_, said["data_version"], wanted, catalog, sectors).get_or(features)
    return Dataset.of_json((path / "dataset.json").read_text()), said
