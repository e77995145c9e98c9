"""How often a text model agrees with people who labelled texts by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from rlaif_ray.errors import MissingDataError, SchemaError
from rlaif_ray.text.protocols import LABELS, Label, SentimentModel

TEXT = ("text", "headline", "title", "sentence", "news", "tweet", "content", "news headline")
LABEL = ("label", "labels", "sentiment", "polarity", "class", "category")
# Numbers other than -1, 0 and 1 mean different things in different sets.
_MEANING: dict[str, Label] = {
    **dict.fromkeys(("positive", "pos", "bullish", "+", "1", "1.0"), "positive"),
    **dict.fromkeys(("negative", "neg", "bearish", "-", "-1", "-1.0"), "negative"),
    **dict.fromkeys(("neutral", "neu", "none", "0", "0.0"), "neutral"),
}  # fmt: skip


@dataclass(frozen=True)
class ClassScore:
    """Of one label: texts that have it, and how well it is found. Shares of nothing are 0."""

    n: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Accuracy:
    """`macro_f1`: mean over the labels that the set has, each counting the same."""

    model: str
    n: int
    accuracy: float
    macro_f1: float
    classes: Mapping[Label, ClassScore]


def accuracy(model: SentimentModel, path: str) -> Accuracy:
    """The model's labels of the texts of a CSV file against its own.

    Parameters
    ----------
    path : a column of texts and one of labels, in any of the usual spellings.

    Raises `MissingDataError` where there is no such file, or nothing in it; `SchemaError` for a column or label that is not
    understood.
    """
    texts, said = labelled(path)
    found = model.classify(texts)
    classes: dict[Label, ClassScore] = {label: _of_class(label, found, said) for label in LABELS if label in said}
    right = sum(a == b for a, b in zip(found, said, strict=True))
    macro = sum(c.f1 for c in classes.values()) / len(classes)
    return Accuracy(f"{model.name}:{model.fingerprint}", len(texts), right / len(texts), macro, classes)


def labelled(path: str) -> tuple[list[str], list[Label]]:
    """Texts and labels of a CSV file."""
    if not Path(path).is_file():
        raise MissingDataError(f"{path} is no file; expected a CSV with texts and labels")
    try:
        table = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.NoDataError, pl.exceptions.ComputeError) as error:
        raise SchemaError(f"{path} cannot be read ({' '.join(str(error).split())[:120]}); expected a CSV in UTF-8 with a header") from None
    columns = [_column(table, path, names) for names in (TEXT, LABEL)]
    rows = table.select(columns).drop_nulls()
    if not rows.height:
        raise MissingDataError(f"{path} holds no labelled text; expected rows with both {columns[0]} and {columns[1]}")
    labels: list[Label] = []
    for said in rows[columns[1]]:
        meant = _MEANING.get(said.strip().lower())
        if meant is None:
            raise SchemaError(f"{path} has the label {said!r}; expected positive, negative or neutral, or 1, -1 and 0")
        labels.append(meant)
    return rows[columns[0]].to_list(), labels


def _column(table: pl.DataFrame, path: str, names: tuple[str, ...]) -> str:
    spelled = {column.strip().lower(): column for column in table.columns}
    found = next((spelled[name] for name in names if name in spelled), None)
    if found is None:
        raise SchemaError(f"{path} has the columns {table.columns}; expected one of {', '.join(names)}")
    return found


def _of_class(label: Label, found: list[Label], said: list[Label]) -> ClassScore:
    hit = sum(a == b == label for a, b in zip(found, said, strict=True))
    of, called = said.count(label), found.count(label)
    return ClassScore(of, hit / called if called else 0.0, hit / of, 2 * hit / (of + called))
