"""What was written about a company, as a text model scored it: news by day, the tone of calls and of filings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import polars as pl

from rlaif_ray.core import Panel
from rlaif_ray.data.tables import MACRO, TEXT_SCHEMA
from rlaif_ray.errors import ConfigError
from rlaif_ray.features import event_time
from rlaif_ray.features.event_time import DAY, age_days, as_known, window
from rlaif_ray.features.family import Family, FeatureSet, FeatureSpec, Tables
from rlaif_ray.features.series import on_rows

TRANSCRIPT = "transcript"
FORMS = ("10-K", "10-Q", "8-K")
ITEMS = {"discussion": (("10-K", "7"), ("10-Q", "I.2")), "risk": (("10-K", "1A"), ("10-Q", "II.1A"))}
"""Where annual and quarterly reports have management's discussion and the risk factors (`data.edgar_items`)."""
BAD = -0.05  # from here on a text counts as negative: VADER's own bound
HALF_LIVES = 10  # of the decayed mean: what is older weighs under a thousandth


@dataclass(frozen=True, eq=False)
class Texts:
    """Scored texts (N,) of one symbol in the order in which they became known."""

    known: np.ndarray  # int64 microseconds
    score: np.ndarray  # float64
    confidence: np.ndarray  # float64
    vector: np.ndarray  # (E,N) float32, of length 1, or 0 where there are no words

    @classmethod
    def of(cls, frame: pl.DataFrame) -> Texts:
        score, confidence = (frame[c].cast(pl.Float64).fill_null(0.0).to_numpy(writable=True) for c in ("score", "confidence"))
        return cls(event_time.moments(frame["known_at"]), score, np.nan_to_num(confidence, copy=False), _laid_out(frame["vector"]))

    def novelty(self, days: int) -> np.ndarray:
        """(N,) 1 - the largest cosine with what became known in the `days` before it; NaN of a text without words."""
        first = np.searchsorted(self.known, self.known - days * DAY, "left")
        found = 1.0 - np.clip(event_time.largest_cosine(self.vector, first), 0.0, 1.0)
        return np.where((self.vector != 0).any(axis=0), found, np.nan)


def _laid_out(vectors: pl.Series) -> np.ndarray:
    """(E,N) float32; one of another length than the first, or none, is all zeros."""
    lengths = vectors.list.len().fill_null(0)
    width = int(next(filter(None, lengths), 0))
    fit = lengths == width
    out = np.zeros((len(vectors), width), np.float32)
    if width:
        out[fit.to_numpy()] = vectors.filter(fit).explode().fill_null(0.0).to_numpy().reshape(-1, width)
    return np.ascontiguousarray(np.nan_to_num(out, copy=False).T)


@dataclass(frozen=True, eq=False)
class Coverage:
    """One symbol's rows, known (T,), and its texts by kind: every text that is neither a transcript nor a filing is news."""

    rows: np.ndarray
    frame: pl.DataFrame

    @classmethod
    def of(cls, bars: pl.DataFrame, texts: pl.DataFrame) -> Coverage:
        """Each text once, as it was first known; of several models the last that scored it."""
        own = texts.filter((pl.col("symbol") != MACRO) & pl.col("score").is_not_null() & pl.col("score").is_not_nan())
        own = own.filter(pl.col("known_at") == pl.col("known_at").min().over("id")).unique("id", keep="last", maintain_order=True)
        return cls(event_time.known_rows(bars), own.sort("known_at", "id"))

    @cached_property
    def news(self) -> Texts:
        return Texts.of(self.frame.filter(~_is_form(FORMS) & pl.col("kind").ne_missing(TRANSCRIPT)))

    @cached_property
    def calls(self) -> Texts:
        return Texts.of(self.frame.filter(kind=TRANSCRIPT))

    @cached_property
    def novelty(self) -> dict[int, np.ndarray]:
        return {}

    def filed(self, part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """When each report with such an item was known, the item's tone, and its change from the report of that form before."""
        if part not in ITEMS:
            raise ConfigError(f"filings have no part {part!r}; expected one of {', '.join(ITEMS)}")
        item = pl.any_horizontal([_is_form((form,)) & (pl.col("section") == section) for form, section in ITEMS[part]])
        form = pl.col("kind").str.slice(0, 4)
        told = self.frame.filter(item).with_columns(change=pl.col("score") - pl.col("score").shift(1).over(form))
        score, change = (told[c].cast(pl.Float64).fill_null(np.nan).to_numpy(writable=True) for c in ("score", "change"))
        return event_time.moments(told["known_at"]), score, change


def _is_form(forms: Sequence[str]) -> pl.Expr:
    return pl.col("kind").str.strip_suffix("/A").is_in(list(forms)).fill_null(False)


# --- news ----------------------------------------------------------------------------------------------------------


def news_mean(c: Coverage, model: str, days: int) -> np.ndarray:
    return event_time.mean(c.news.score, np.ones(len(c.news.known)), *window(c.news.known, c.rows, days))


def news_weighted(c: Coverage, model: str, days: int) -> np.ndarray:
    return event_time.mean(c.news.score, c.news.confidence, *window(c.news.known, c.rows, days))


def news_strongest(c: Coverage, model: str, days: int) -> np.ndarray:
    return event_time.strongest(c.news.score, *window(c.news.known, c.rows, days))


def news_decayed(c: Coverage, model: str, days: int) -> np.ndarray:
    seen = window(c.news.known, c.rows, HALF_LIVES * days)
    return event_time.decayed_mean(c.news.score, c.news.known, c.rows, *seen, float(days * DAY))


def news_trend(c: Coverage, model: str, short: int, long: int) -> np.ndarray:
    return news_mean(c, model, short) - news_mean(c, model, long)


def news_negative(c: Coverage, model: str, days: int) -> np.ndarray:
    return event_time.mean((c.news.score < BAD) * 1.0, np.ones(len(c.news.known)), *window(c.news.known, c.rows, days))


def news_dispersion(c: Coverage, model: str, days: int) -> np.ndarray:
    return event_time.deviation(c.news.score, *window(c.news.known, c.rows, days))


def news_count(c: Coverage, model: str, days: int) -> np.ndarray:
    first, end = window(c.news.known, c.rows, days)
    return (end - first).astype(np.float64)


def news_abnormal(c: Coverage, model: str, short: int, long: int) -> np.ndarray:
    """Undefined until the first text is as old as both windows together: before, nothing says what is usual."""
    first, end = window(c.news.known, c.rows, short + long, short)
    usual = (end - first) * (short / long)
    found = np.log1p(news_count(c, model, short)) - np.log1p(usual)
    begun = c.news.known[0] if len(c.news.known) else np.iinfo(np.int64).max
    return np.where(c.rows - (short + long) * DAY >= begun, found, np.nan)


def news_novelty(c: Coverage, model: str, days: int, memory: int) -> np.ndarray:
    if memory not in c.novelty:
        c.novelty[memory] = c.news.novelty(memory)
    return event_time.mean(c.novelty[memory], np.ones(len(c.news.known)), *window(c.news.known, c.rows, days))


def news_age(c: Coverage, model: str) -> np.ndarray:
    return age_days(c.news.known, c.news.known, c.rows)


# --- calls and filings ---------------------------------------------------------------------------------------------


def call_tone(c: Coverage, model: str) -> np.ndarray:
    return as_known(c.calls.score, c.calls.known, c.rows)


def call_change(c: Coverage, model: str) -> np.ndarray:
    return as_known(np.diff(c.calls.score, prepend=np.nan), c.calls.known, c.rows)


def call_age(c: Coverage, model: str) -> np.ndarray:
    return age_days(c.calls.known, c.calls.known, c.rows)


def filing_tone(c: Coverage, model: str, part: str) -> np.ndarray:
    known, score, _ = c.filed(part)
    return as_known(score, known, c.rows)


def filing_change(c: Coverage, model: str, part: str) -> np.ndarray:
    known, _, change = c.filed(part)
    return as_known(change, known, c.rows)


def filing_age(c: Coverage, model: str, part: str) -> np.ndarray:
    known, _, _ = c.filed(part)
    return age_days(known, known, c.rows)


# --- the set -------------------------------------------------------------------------------------------------------


def families(model: str) -> tuple[Family, ...]:
    """The families of a text model: their columns carry its name, their texts come from the table `text_<model>`."""
    inputs = ("text_{model}",)
    by_days, days = ("model", "days"), tuple((model, d) for d in (1, 7, 30))
    two, parts = ((model, 7), (model, 30)), tuple((model, part) for part in ITEMS)
    return (
        Family("news_{model}_mean_{days}d", news_mean, inputs, 0, "score", "news",
               "mean score of the stories of the last {days} days", by_days, days, _TETLOCK),
        Family("news_{model}_weighted_{days}d", news_weighted, inputs, 0, "score", "news",
               "the same, weighted by the model's confidence", by_days, days),
        Family("news_{model}_strongest_{days}d", news_strongest, inputs, 0, "score", "news",
               "the score of the largest magnitude of the last {days} days", by_days, days),
        Family("news_{model}_decayed_{days}d", news_decayed, inputs, 0, "score", "news",
               "mean score, a story weighing half as much every {days} days", by_days, ((model, 1), (model, 7))),
        Family("news_{model}_trend_{short}d_{long}d", news_trend, inputs, 0, "score", "news",
               "mean score of {short} days less that of {long}", ("model", "short", "long"), ((model, 7, 30),)),
        Family("news_{model}_negative_{days}d", news_negative, inputs, 0, "ratio", "news",
               "share of the stories of {days} days with a score below -0.05", by_days, two),
        Family("news_{model}_dispersion_{days}d", news_dispersion, inputs, 0, "score", "news",
               "standard deviation of the scores of {days} days, from two stories on", by_days, two),
        Family("news_{model}_count_{days}d", news_count, inputs, 0, "count", "news",
               "stories of the last {days} days", by_days, days, missing="zero"),
        Family("news_{model}_abnormal_{short}d_{long}d", news_abnormal, inputs, 0, "ratio", "news",
               "log of 1 + stories in {short} days over 1 + what is usual in as many, by the {long} days before",
               ("model", "short", "long"), ((model, 1, 30), (model, 7, 90)), missing="zero"),
        Family("news_{model}_novelty_{days}d_{memory}d", news_novelty, inputs, 0, "ratio", "news",
               "mean over the stories of {days} days of 1 - the largest cosine with those of the {memory} days before each",
               ("model", "days", "memory"), ((model, 7, 30), (model, 30, 30)), _TETLOCK_2011),
        Family("news_{model}_age_days", news_age, inputs, 0, "days", "news",
               "days (and parts of one) since the last story", ("model",), ((model,),)),
        Family("call_{model}_tone", call_tone, inputs, 0, "score", "news",
               "score of the last earnings call's transcript", ("model",), ((model,),), _PRICE, missing="carry"),
        Family("call_{model}_tone_change", call_change, inputs, 0, "score", "news",
               "the same less that of the call before", ("model",), ((model,),), missing="carry"),
        Family("call_{model}_age_days", call_age, inputs, 0, "days", "news", "days since the last call", ("model",), ((model,),)),
        Family("filing_{model}_{part}_tone", filing_tone, inputs, 0, "score", "news",
               "score of the {part} in the last 10-K or 10-Q", ("model", "part"), parts, missing="carry"),
        Family("filing_{model}_{part}_tone_change", filing_change, inputs, 0, "score", "news",
               "the same less that of the report on the same form before", ("model", "part"), parts, _LAZY, missing="carry"),
        Family("filing_{model}_{part}_tone_age_days", filing_age, inputs, 0, "days", "news",
               "days since the last 10-K or 10-Q with a {part}", ("model", "part"), parts),
    )  # fmt: skip


_TETLOCK = "Tetlock, Saar-Tsechansky and Macskassy (2008), J. of Finance 63"
_TETLOCK_2011 = "after Tetlock (2011), Review of Financial Studies 24 (likeness to the stories before)"
_PRICE = "Price, Doran, Peterson and Bliss (2012), J. of Banking and Finance 36"
_LAZY = "after Cohen, Malloy and Nguyen (2020), J. of Finance 75"


def apply(tables: Tables, specs: Sequence[FeatureSpec], model: str) -> Panel:
    """Columns over one symbol's texts; none where there is no table of them. NaN is no text, never neutral; counts are 0.

    Raises `ConfigError` for a column of another model: its texts are in another table.
    """
    other = next((s for s in specs if s.parameters[0] != model), None)
    if other is not None:
        raise ConfigError(f"{other.name} is of the model {other.parameters[0]!r}; this set reads text_{model}: take its own set")
    bars, texts = tables["bars"], tables.get(f"text_{model}")
    if texts is None:
        return on_rows(bars, {})
    coverage = Coverage.of(bars, texts.select(*TEXT_SCHEMA))
    with np.errstate(invalid="ignore", divide="ignore"):
        return on_rows(bars, {s.name: s.of(coverage) for s in specs})


def sentiment(model: str) -> FeatureSet:
    """The set of a text model."""
    name = "sentiment" if model == "lexicon" else f"sentiment_{model}"
    return FeatureSet(name, families(model), partial(apply, model=model), reads=("bars", f"text_{model}"))


SENTIMENT, SENTIMENT_FINBERT = sentiment("lexicon"), sentiment("finbert")
