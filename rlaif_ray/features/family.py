"""What a feature is: a formula with parameters, what it reads, when it is first defined, in which unit, and who says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from rlaif_ray.core import Panel
from rlaif_ray.errors import ConfigError

Parameter = int | float | str
Tables = Mapping[str, pl.DataFrame]  # by name, every row with `known_at`; `bars` is one row a bar
Kind = Literal[
    "return", "volatility", "volume", "trend", "oscillator", "range", "pattern", "level", "structure", "time", "cross_section", "fact",
    "value", "quality", "growth", "news", "positioning", "macro", "liquidity", "book", "regime",
]  # fmt: skip
Unit = Literal["ratio", "percent", "bps", "score", "rank", "price", "shares", "usd", "1/usd", "count", "bars", "days", "flag", "rate"]
Missing = Literal["undefined", "zero", "carry"]
OF_SCALE: frozenset[Unit] = frozenset({"price", "shares", "usd", "1/usd"})
"""Units that a constant factor on a symbol's prices or volumes changes: not for vendor-adjusted series, nor for learners."""


@dataclass(frozen=True)
class FeatureSpec:
    """One column. `look_back_bars` b: with unbroken data it is first defined on the symbol's row b (counting from 0)."""

    name: str
    family: str
    formula: Callable[..., np.ndarray]  # (context, *parameters) -> (T,) float64; the context is the set's own
    parameters: tuple[Parameter, ...]
    inputs: tuple[str, ...]
    look_back_bars: int
    unit: Unit
    kind: Kind
    help: str
    source: str
    missing: Missing

    def of(self, context: object) -> np.ndarray:
        """Its values. Raises `ConfigError` for parameters that TA-Lib refuses."""
        try:
            return self.formula(context, *self.parameters)
        except Exception as error:
            if type(error) not in (Exception, OverflowError):  # what TA-Lib raises: the bare class, or too large a number for C
                raise
            said = f"{self.name} cannot be made ({error})"
            raise ConfigError(f"{said}; expected other values of features.parameters.{self.family} than {list(self.parameters)}") from None


@dataclass(frozen=True)
class Family:
    """Columns of one formula, one for each row of parameters.

    Parameters
    ----------
    name : of a column, with its parameters in braces: `rsi_{bars}`. A name that leaves parameters out (`macd`) is that of the
        first of `rows`; other rows append theirs.
    formula : (context, *parameters) -> (T,) float64, NaN where undefined.
    inputs : columns (or facts, or other features) without which it cannot be computed; may be parameters in braces.
    look_back : bars before the first defined one, or (*parameters) -> that; of what compares symbols, the bars of the market
        that a value follows from beside those of the features compared.
    unit, kind : what the numbers are, and which family of ideas they belong to.
    help : one line; may name parameters in braces.
    parameters, rows : names of the parameters, and the values that the catalogue has unless told otherwise.
    source : paper, book or convention that the formula follows, if it has a single one.
    missing : what a learner may put where the value is undefined: nothing (mask it), 0, or the last one.
    """

    name: str
    formula: Callable[..., np.ndarray]
    inputs: tuple[str, ...]
    look_back: int | Callable[..., int]
    unit: Unit
    kind: Kind
    help: str
    parameters: tuple[str, ...] = ()
    rows: tuple[tuple[Parameter, ...], ...] = ((),)
    source: str = ""
    missing: Missing = "undefined"

    @property
    def key(self) -> str:
        """The name without its parameters: how a config names the family."""
        return re.sub(r"_?\{\w+\}d?(?=_|$)", "", self.name).strip("_")  # days have their letter with them

    def specs(self, rows: Sequence[Sequence[Parameter]] | None = None) -> tuple[FeatureSpec, ...]:
        """A column for each row of parameters (default: the catalogue's). Raises `ConfigError` for rows of another shape."""
        return tuple(self._spec(tuple(row)) for row in (self.rows if rows is None else rows))

    def _spec(self, values: tuple[Parameter, ...]) -> FeatureSpec:
        like = self.rows[0]
        if len(values) != len(like) or not all(map(_fits, values, like)):
            expected = f"expected {list(self.parameters)} like {list(like)}: above 0, whole where that is whole"
            raise ConfigError(f"features.parameters.{self.key} has {list(values)}; {expected}")
        named = dict(zip(self.parameters, values, strict=True))
        name = self.name.format(**named)
        if "{" not in self.name and values != like:
            name = "_".join([name, *map(str, values)])
        look_back = self.look_back if isinstance(self.look_back, int) else self.look_back(*values)
        return FeatureSpec(
            name.replace(".", "p"), self.key, self.formula, values, tuple(i.format(**named) for i in self.inputs), look_back, self.unit,
            self.kind, self.help.format(**named), self.source, self.missing,
        )  # fmt: skip


def _fits(value: Parameter, like: Parameter) -> bool:
    if isinstance(value, bool) or isinstance(like, str) or isinstance(value, str):
        return type(value) is type(like)
    return value > 0 and (isinstance(value, int) or isinstance(like, float))


@dataclass(frozen=True)
class FeatureSet:
    """Features that are computed together and lie in one table, `features_<name>`.

    Parameters
    ----------
    apply : (tables, specs) -> a Panel with the rows of `bars` and, as float32, those of `specs` that the tables allow. A row is
        known when its bar and everything before it are. Of one symbol; of all of them where the set goes `across`.
    reads : tables of the lake, `bars` among them. One that goes `across` reads, instead, `features`: the columns of other
        sets that its specs name as inputs. What is made from a recorded `stream` has an `apply` of its own.
    """

    name: str
    families: tuple[Family, ...]
    apply: Callable[..., Panel]
    reads: tuple[str, ...] = ("bars",)
    across: bool = False
