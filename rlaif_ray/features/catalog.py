"""Every feature by name: which set makes it, from what, from which bar on, in which unit; and which of them a policy sees.

A set's formulas are imported when it is first asked for: what needs one set does not wait for the kernels of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from rlaif_ray.core import PriceKind, content_hash
from rlaif_ray.errors import ConfigError, MissingDataError, did_you_mean
from rlaif_ray.features.family import OF_SCALE, FeatureSet, FeatureSpec, Parameter

SETS = (
    "technical", "core_31", "microstructure", "regime", "fracdiff", "fundamental", "sentiment", "sentiment_finbert", "positioning",
    "order_book", "cross_section", "cross_asset",
)  # fmt: skip
"""In the order in which a name is looked for. Sets that compare symbols stand after those whose columns they compare."""

DEFAULT_SETS = ("technical", "cross_section")
"""What a run makes unless told otherwise: they need nothing but bars."""

DEFAULT_OBSERVATION: tuple[str, ...] = (
    "ret_1_scaled",
    "ret_5_scaled_rank",
    "ret_21_scaled",
    "ret_63_scaled",
    "rsi_14",
    "bollinger_b_20",
    "volume_z_63",
    "volume_ratio_5_63",
    "vol_21",
    "atr_ratio_14_63",
    "filing_score",
    "filing_age_bars",
    "news_score",
    "news_age_bars",
)
"""What a policy sees unless told otherwise, where the source has the inputs; all defined after 63 bars (facts: once one is known)."""

FACTS = ("filing_score", "filing_age_bars", "news_score", "news_age_bars")
"""Scores of facts and their ages, which the cube joins as of each bar and no set makes."""


def feature_set(name: str) -> FeatureSet:
    """The set of that name. Raises `ConfigError` with the nearest name."""
    match name:
        case "technical":
            from rlaif_ray.features.technical import TECHNICAL as made
        case "core_31":
            from rlaif_ray.features.core_31 import CORE_31 as made
        case "microstructure":
            from rlaif_ray.features.microstructure import MICROSTRUCTURE as made
        case "regime":
            from rlaif_ray.features.regime import REGIME as made
        case "fracdiff":
            from rlaif_ray.features.fracdiff import FRACDIFF as made
        case "fundamental":
            from rlaif_ray.features.fundamental import FUNDAMENTAL as made
        case "sentiment":
            from rlaif_ray.features.sentiment import SENTIMENT as made
        case "sentiment_finbert":
            from rlaif_ray.features.sentiment import SENTIMENT_FINBERT as made
        case "positioning":
            from rlaif_ray.features.positioning import POSITIONING as made
        case "order_book":
            from rlaif_ray.features.order_book import ORDER_BOOK as made
        case "cross_section":
            from rlaif_ray.features.cross_section import CROSS_SECTION as made
        case "cross_asset":
            from rlaif_ray.features.cross_asset import CROSS_ASSET as made
        case _:
            raise ConfigError(f"no feature set {name!r}; expected one of {', '.join(SETS)}.{did_you_mean(name, SETS)}")
    return made


@dataclass(frozen=True)
class Catalog:
    """The columns of some sets. Picklable: holds names and parameters, finds the formulas where it is used.

    Parameters
    ----------
    sets : in `SETS`.
    parameters : other rows of parameters than the catalogue's, by family: {"rsi": ((7,), (21,))}.

    Raises `ConfigError` for a set that is there twice, a family that none of them has, and rows that make no column, or one twice.
    """

    sets: tuple[str, ...] = DEFAULT_SETS
    parameters: Mapping[str, Sequence[Sequence[Parameter]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.sets)) < len(self.sets):
            raise ConfigError(f"feature sets {list(self.sets)} name one twice; expected each once")
        families = [f.key for name in self.sets for f in feature_set(name).families]
        for key in self.parameters:
            if key not in families:
                raise ConfigError(f"features.parameters names {key!r}, which no set of {list(self.sets)} has.{did_you_mean(key, families)}")
        if self.parameters:
            self.names()

    def __getstate__(self) -> dict[str, object]:
        """Without the formulas that were found."""
        return {"sets": self.sets, "parameters": self.parameters}

    def specs(self, set_name: str, price_kind: PriceKind = "raw") -> tuple[FeatureSpec, ...]:
        """The columns of one set, in the order in which its table has them; those that mean something on such prices.

        What is laid against prices as they were traded (its inputs have `split`) needs raw ones; on a vendor's scale, which the
        next event changes, nothing in units of price says anything.
        """
        made = self._of_set[set_name] if set_name in self.sets else ()
        if price_kind == "raw":
            return made
        return tuple(s for s in made if "split" not in s.inputs and (price_kind != "vendor_adjusted" or s.unit not in OF_SCALE))

    def names(self) -> tuple[str, ...]:
        return tuple(self._where)

    def spec(self, name: str) -> FeatureSpec:
        """The feature of that name. Raises `MissingDataError` with the nearest name."""
        if name not in self._where:
            raise MissingDataError(f"no feature {name!r} among the {len(self._where)} of the catalogue.{did_you_mean(name, self._where)}")
        return self._where[name][1]

    @cached_property
    def _of_set(self) -> dict[str, tuple[FeatureSpec, ...]]:
        """A column that compares others is first defined when they are."""
        made = {n: self._alone(n) for n in self.sets}
        return {n: tuple(self._after_inputs(s, made) for s in specs) if feature_set(n).across else specs for n, specs in made.items()}

    def _alone(self, set_name: str) -> tuple[FeatureSpec, ...]:
        return tuple(s for f in feature_set(set_name).families for s in f.specs(self.parameters.get(f.key)))

    def _after_inputs(self, spec: FeatureSpec, made: dict[str, tuple[FeatureSpec, ...]]) -> FeatureSpec:
        first = [found.look_back_bars for name in spec.inputs if (found := self._found(name, made)) is not None]
        return replace(spec, look_back_bars=max(spec.look_back_bars, *first, 0))

    def _found(self, name: str, made: dict[str, tuple[FeatureSpec, ...]]) -> FeatureSpec | None:
        """Among the catalogue's own sets, else where it stands."""
        for set_name in dict.fromkeys((*self.sets, *SETS)):
            if not feature_set(set_name).across:
                specs = made.get(set_name) or self._alone(set_name)
                if (spec := next((s for s in specs if s.name == name), None)) is not None:
                    return spec
        return None

    def span(self, set_name: str) -> int:
        """Bars of the market before its own that a value of a set across symbols follows from."""
        return max((s.look_back_bars for s in self._alone(set_name)), default=0)

    @cached_property
    def _where(self) -> dict[str, tuple[str, FeatureSpec]]:
        """Name -> its set, and itself. Raises `ConfigError` where parameters give one name twice."""
        found: dict[str, tuple[str, FeatureSpec]] = {}
        for name in self.sets:
            for s in self.specs(name):
                if s.name in found:
                    raise ConfigError(f"features.parameters.{s.family} gives {s.name!r} twice; expected rows that differ by name")
                found[s.name] = name, s
        return found

    def table(self, set_name: str) -> str:
        """Where the lake has a set: other parameters than the catalogue's make another table."""
        own = {f.key: self.parameters[f.key] for f in feature_set(set_name).families if f.key in self.parameters}
        return f"features_{set_name}" + (f"_{content_hash([sorted(own.items())])[:8]}" if own else "")

    def compared(self, set_name: str) -> dict[str, list[str]]:
        """Which columns of which sets a set across symbols compares."""
        found: dict[str, list[str]] = {}
        for column in dict.fromkeys(c for s in self.specs(set_name) for c in s.inputs):
            if column not in self._where:
                raise ConfigError(f"{set_name} compares {column!r}, which features.parameters leaves out or no set has; add it there")
            found.setdefault(self._where[column][0], []).append(column)
        return found

    def completed(self) -> Catalog:
        """With the sets whose columns its own sets compare, each before those that need it."""
        wanted = {c for name in self.sets if feature_set(name).across for s in self.specs(name) for c in s.inputs}
        lacking = wanted - set(self.names())
        others = [n for n in SETS if n not in self.sets and not feature_set(n).across] if lacking else []
        needed = [n for n in others if lacking & set(replace(self, sets=(n,), parameters={}).names())]
        return replace(self, sets=tuple(n for n in SETS if n in {*self.sets, *needed}))


def warmup_bars(names: Iterable[str], catalog: Catalog | None = None) -> int:
    """Leading rows of a symbol on which some of `names` are not yet defined."""
    catalog = Catalog() if catalog is None else catalog
    return max((catalog.spec(n).look_back_bars for n in names if n not in FACTS), default=0)
