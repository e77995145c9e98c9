"""Every knob: frozen pydantic models, one home each, a sentence of help under each field.

Precedence: defaults < --scale preset < --config FILE.yaml < --section.key=value. Unknown names are refused.
Library classes take plain keywords and never see this tree. No torch and no ray here, so `--help` stays fast.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, NaiveDatetime, ValidationError, field_validator

from rlaif_ray.config_data import FACT_SOURCES, SOURCES, DataConfig, FactsConfig, Section, SyntheticData
from rlaif_ray.config_execution import Execution
from rlaif_ray.config_feedback import Feedback, Improve
from rlaif_ray.config_rl import RL, Sweep
from rlaif_ray.config_thesis import Thesis
from rlaif_ray.core import content_hash
from rlaif_ray.errors import ConfigError, did_you_mean


class Lake(Section):
    uri: str = "lake"
    """Folder or URI of the Delta tables; the trial ledger lies beside them."""


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or len(set(names)) < len(names):
        raise ValueError("at least one name, each once")
    return names


class Features(Section):
    sets: tuple[str, ...] = ("technical", "cross_section")
    """Feature sets to make, one table each: `rlaif features list` says which there are."""
    parameters: dict[str, tuple[Any, ...]] = Field(default={})
    """Other periods than the catalogue's, by family: {rsi: [7, 21], macd: [[8, 17, 9]]}; they lie in a table of their own."""
    universe: str | None = None
    """YAML file of symbols with their sectors, for features that compare within a sector."""

    @field_validator("sets")
    @classmethod
    def _sets_once(cls, sets: tuple[str, ...]) -> tuple[str, ...]:
        return _each_once(sets)

    @field_validator("parameters", mode="before")
    @classmethod
    def _rows(cls, parameters: Any) -> dict[str, tuple[Any, ...]]:
        """A family with one parameter may list its values; each row becomes a tuple."""
        if not isinstance(parameters, dict) or any(not isinstance(v, (list, tuple)) for v in parameters.values()):
            raise ValueError("for each family a list, such as --features.parameters.rsi='[7, 21]'")
        rows = {k: tuple(tuple(r) if isinstance(r, (list, tuple)) else (r,) for r in v) for k, v in parameters.items()}
        if any(not of or any(not isinstance(x, (int, float, str)) for row in of for x in row) for of in rows.values()):
            raise ValueError("for each family a list of numbers, or of lists of them, none empty")
        return rows


class Text(Section):
    model: Literal["lexicon", "finbert"] = "lexicon"
    """Who says how a text bears on its subject; the table and the columns name it."""
    weights: str | None = None
    """Of finbert: a local folder, or a name on the Hugging Face hub."""
    embedding: Literal["hashing", "sentence_transformer"] = "hashing"
    """Vectors that novelty is measured with; hashing needs no weights, sentence_transformer the extra `rag`."""
    embedding_weights: str | None = None
    """Of sentence_transformer: a local folder, or a name on the hub."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where networks run; auto: the fastest that is there."""
    batch: int = Field(default=32, ge=1)
    """Passages that go through a network at once."""


class TTM(Section):
    """Tiny Time Mixer, trained from random weights unless some are given."""

    context: int = Field(default=128, ge=32)
    """Bars of history a window."""
    steps: int = Field(default=2000, ge=1)
    """Optimiser steps for the first window of a fold; later windows go on from it with `refit_steps`."""
    refit_steps: int = Field(default=500, ge=1)
    """Optimiser steps for each later, longer window."""
    batch: int = Field(default=128, ge=1)
    """Windows a step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """AdamW, one cycle."""
    weights: str | None = None
    """Local folder or hub id of pretrained weights; None: random weights."""
    trained_until: dt.date | None = None
    """Last date that pretrained weights may have seen; needed with `weights`."""


class Trees(Section):
    """LightGBM over the cross-section, one model a horizon."""

    trees: int = Field(default=300, ge=1)
    """Most trees; fewer where the held-out rows gain nothing from more."""
    leaves: int = Field(default=15, ge=2)
    """Leaves a tree."""
    learning_rate: float = Field(default=0.03, gt=0, le=1)
    """How much of each tree counts."""
    min_rows: int = Field(default=100, ge=1)
    """Rows (date, symbol) a leaf."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of the fitted bars, the last, that says how many trees and how wide the quantiles."""


class ForecastSection(Section):
    horizons: tuple[int, ...] = (1, 5)
    """Bars ahead, rising."""
    levels: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Quantile levels, symmetric about 0.5."""
    models: tuple[Literal["naive", "drift", "ewma_volatility", "lightgbm", "ttm"], ...] = (
        "naive", "drift", "ewma_volatility", "lightgbm", "ttm"
    )  # fmt: skip
    """Forecasters that run; all are judged in the report."""
    trees: Trees = Trees()
    ttm: TTM = TTM()

    @field_validator("horizons")
    @classmethod
    def _bars_ahead(cls, horizons: tuple[int, ...]) -> tuple[int, ...]:
        if not horizons or horizons[0] < 1 or list(horizons) != sorted(set(horizons)):
            raise ValueError("bars ahead, rising, each 1 or more")
        return horizons

    @field_validator("levels")
    @classmethod
    def _around_the_median(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        """Every reader asks for the median; TTM needs the rest in pairs."""
        paired = all(abs(low + high - 1.0) < 1e-9 for low, high in zip(levels, reversed(levels), strict=True))
        if len(levels) < 3 or 0.5 not in levels or levels[0] <= 0 or not paired or list(levels) != sorted(set(levels)):
            raise ValueError("three levels or more between 0 and 1, rising, symmetric about 0.5, with 0.5 itself")
        return levels

    @field_validator("models")
    @classmethod
    def _models_once(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        return _each_once(models)


class Agents(Section):
    roster: tuple[Literal["fundamental", "sentiment", "technical", "risk"], ...] = ("fundamental", "sentiment", "technical", "risk")
    """Analysts on the desk."""
    every_bars: int = Field(default=5, ge=1)
    """A new opinion on each symbol every so many bars."""
    horizon_bars: int = Field(default=5, ge=1)
    """Bars over which an opinion is judged."""
    deadline_s: float = Field(default=120.0, gt=0)
    """An analyst that has not answered a batch by then abstains, visibly."""

    @field_validator("roster")
    @classmethod
    def _seats_once(cls, roster: tuple[str, ...]) -> tuple[str, ...]:
        return _each_once(roster)


class Backtest(Section):
    folds: Literal["yearly"] | Annotated[int, Field(ge=1)] = 4
    """Test blocks; yearly: one for each year that they cover together."""
    test_fraction: float = Field(default=0.5, gt=0, lt=0.9)
    """Share of the bars that the test blocks cover together, at the end."""
    forecaster_fraction: float = Field(default=0.5, gt=0, lt=1)
    """Share of a fold's training span in block A, where only the forecaster is fitted."""
    inner_windows: int = Field(default=3, ge=1)
    """Expanding windows that the rest of the span (block B, less its validation fifth) is cut into."""
    embargo_bars: int = Field(default=5, ge=0)
    """Bars left out between training and test, beyond the purge."""
    resamples: int = Field(default=2000, ge=100)
    """Stationary-bootstrap resamples behind each interval."""
    vault_from: dt.date | None = None
    """First day of the vault, before which all test blocks end; default: the last two years of a real set, none of a synthetic one."""
    vault: Literal["closed", "open", "broken"] = "closed"
    """open: test in the vault alone, once a configuration; broken: once more, and stamped (--open-vault, --break-vault)."""
    chosen_until: NaiveDatetime | None = None
    """Last bar, in UTC, that knobs were chosen on: all test blocks begin after it. `rlaif sweep` writes it beside the knobs it found."""


_NO_RESULT: dict[str, Any] = {"lake": True, "facts": True, "text": True, "sweep": True}  # sections that can change none


class Config(Section):
    seed: int = 0
    """Root seed of everything that is random; each use derives its own by name."""
    data: DataConfig = SyntheticData()
    facts: FactsConfig | None = None
    """What `rlaif ingest` takes in beside bars."""
    lake: Lake = Lake()
    features: Features = Features()
    text: Text = Text()
    forecast: ForecastSection = ForecastSection()
    agents: Agents = Agents()
    feedback: Feedback = Feedback()
    improve: Improve = Improve()
    thesis: Thesis = Thesis()
    rl: RL = RL()
    sweep: Sweep = Sweep()
    execution: Execution = Execution()
    backtest: Backtest = Backtest()

    @property
    def hash(self) -> str:
        """Of everything that can change a result on given test blocks; where the lake lies cannot, nor what blocks are allowed."""
        return content_hash(self.model_dump(mode="json", exclude={**_NO_RESULT, "backtest": {"vault", "chosen_until"}}))

    @property
    def dataset(self) -> str:
        """Where in the lake its bars lie: the dataset that `data` names, else one named for the source and its settings."""
        return self.data.dataset or f"{self.data.type}-{content_hash(self.data.model_dump(mode='json'))[:8]}"

    @property
    def family(self) -> str:
        """The hash without the seed and without where the vault begins: what may open it once."""
        chance = {**_NO_RESULT, "seed": True, "backtest": {"vault", "vault_from", "chosen_until"}}
        return content_hash(self.model_dump(mode="json", exclude=chance))


SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "data": {"n_symbols": 8, "n_bars": 1500},
        "forecast": {"ttm": {"context": 64, "steps": 200, "refit_steps": 50}},
        "rl": {"sac": {"hidden": [64, 64], "batch": 128, "updates": 2000, "paths": 16}},
        "backtest": {"folds": 2},
    },
    "laptop": {
        "data": {"n_symbols": 30, "n_bars": 5000},
        "forecast": {"horizons": [1, 5, 20], "ttm": {"context": 128, "steps": 2000, "refit_steps": 500}},
        "rl": {"sac": {"hidden": [128, 128], "batch": 128, "updates": 8000, "paths": 64}},
        "backtest": {"folds": 4},
    },
    "cluster": {
        "data": {"n_symbols": 500, "n_bars": 5000},
        "forecast": {"horizons": [1, 5, 20], "ttm": {"context": 512, "steps": 20000, "refit_steps": 5000, "batch": 1024}},
        "agents": {"every_bars": 1},
        "rl": {
            "members": 5, "direct": {"paths": 256},
            "sac": {"hidden": [256, 256], "batch": 256, "updates": 200_000, "paths": 256, "replay": 1_000_000},
        },
        "backtest": {"folds": "yearly"},
    },
    "signal-test": {
        "data": {"n_symbols": 30, "n_bars": 2500},
        "forecast": {"ttm": {"context": 64, "steps": 500, "refit_steps": 100}},
        "rl": {"sac": {"hidden": [64, 64], "batch": 128, "updates": 10_000, "paths": 64}},
        "backtest": {"folds": 2},
    },
}


def load_config(
    scale: str | None = None, file: str | None = None, overrides: dict[str, str] | None = None, data: dict[str, Any] | None = None
) -> Config:  # fmt: skip
    """Defaults, then the preset, then the file, then dotted overrides (values parsed as YAML).

    `data` : other defaults of that section, whatever its `type`.

    Raises `ConfigError` with one line that names the knob, what was seen and what is expected.
    """
    defaults = {"type": "synthetic"} | (data or {})
    tree: dict[str, Any] = {"data": {"type": defaults["type"]}}
    if scale is not None:
        if scale not in SCALES:
            raise ConfigError(f"--scale is {scale!r}; expected one of {', '.join(SCALES)}.{did_you_mean(scale, SCALES)}")
        tree = _merge(tree, SCALES[scale])
    dotted = [_nest(name.split("."), _parse(name, text)) for name, text in (overrides or {}).items()]
    # A new `type` drops what belonged to the old one, so types go first, whatever the order on the command line; also before
    # the file: where that names none, its knobs are of whichever is chosen.
    types = [over for over, name in zip(dotted, overrides or {}, strict=True) if name.endswith(".type")]
    for over in [*types, *([] if file is None else [_read_yaml(file)]), *types, *dotted]:
        tree = _merge(tree, over)
    if isinstance(tree["data"], dict):
        tree["data"] = defaults | tree["data"]
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_first_problem(error)) from None


def _merge(tree: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid upon `tree`. Where a section changes its `type`, what was set for the old type is dropped."""
    out = dict(tree)
    for key, value in over.items():
        old = out.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            changed = "type" in value and value["type"] != old.get("type")
            out[key] = dict(value) if changed else _merge(old, value)
        else:
            out[key] = value
    return out


def _nest(path: list[str], value: Any) -> dict[str, Any]:
    return {path[0]: value if len(path) == 1 else _nest(path[1:], value)}


def _parse(dotted: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--{dotted} is {text!r}, which is not a YAML value; quote it") from None


def _read_yaml(file: str) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(Path(file).read_text())
    except OSError as error:
        raise ConfigError(f"--config {file}: {error.strerror}; expected a YAML file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"--config {file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"--config {file} holds {type(tree).__name__}; expected sections such as 'data:' and 'rl:'")
    return tree


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    loc = [str(p) for p in problem["loc"]]
    by_type = FACT_SOURCES if loc[0] == "facts" else SOURCES
    source = next((p for p in loc if p in by_type), None)
    path = [p for p in loc if p not in by_type]
    name = ".".join(path)
    if problem["type"] == "extra_forbidden":
        where = name.rpartition(".")[0]
        siblings = [k for k in known_knobs() if k.rpartition(".")[0] == where] if where else list(Config.model_fields)
        if source is not None:
            siblings = [f"{loc[0]}.{field}" for field in by_type[source].model_fields]
        owner = f" of {source}" if source else ""
        return f"unknown knob --{name}{owner}; expected one of {', '.join(sorted(siblings))}.{did_you_mean(name, siblings)}"
    if problem["type"] == "missing":
        return f"--{name} is not set; {source or 'this section'} needs it"
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        seen = problem["input"].get("type") if isinstance(problem["input"], dict) else problem["input"]
        return f"--{name}.type is {seen!r}; expected one of {', '.join(by_type)}.{did_you_mean(str(seen), by_type)}"
    return f"--{name} is {problem.get('input')!r}; expected: {problem['msg'].removeprefix('Value error, ')}"


def known_knobs() -> dict[str, tuple[Any, str]]:
    """Every dotted knob -> (default, help)."""
    knobs: dict[str, tuple[Any, str]] = {}

    def walk(model: type[BaseModel], prefix: str) -> None:
        for name, info in model.model_fields.items():
            kind: Any = info.annotation
            if isinstance(kind, type) and issubclass(kind, Section):
                walk(kind, f"{prefix}{name}.")
            elif name in ("data", "facts"):
                for member in dict.fromkeys((SOURCES if name == "data" else FACT_SOURCES).values()):
                    walk(member, f"{name}.")
            else:
                default = None if info.is_required() else info.default
                if isinstance(default, tuple) and default and isinstance(default[0], BaseModel):
                    default = tuple(row.model_dump(mode="json") for row in default)
                knobs.setdefault(f"{prefix}{name}", (default, info.description or ""))

    walk(Config, "")
    knobs["data.type"] = ("synthetic", f"Where the bars come from: {', '.join(SOURCES)}.")
    knobs["facts.type"] = (None, f"Facts and documents for `rlaif ingest`: {', '.join(FACT_SOURCES)}.")
    return knobs
