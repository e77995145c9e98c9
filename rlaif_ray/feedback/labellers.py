"""A second opinion on pairs: a judge is asked in both orders, and how far labels can be trusted is measured, not assumed.

Who labels pairs one way round prefers what stands first (Wang et al. 2024, Large Language Models are not Fair Evaluators;
Zheng et al. 2023, section 3.3): averaged over both orders the preference for a place is gone, and what is left of it is the
judge's position bias. How often labels are wrong sets the `label_smoothing` of whoever learns from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlaif_ray.core import Cube, Judge, Opinion, OpinionTable, Preference
from rlaif_ray.errors import DataError
from rlaif_ray.feedback.intervals import standard_error
from rlaif_ray.feedback.preferences import PairTable
from rlaif_ray.feedback.reward_questions import together

Z95 = 1.959964


@dataclass(frozen=True)
class Label:
    """What a judge says of two opinions on one question, asked in both orders."""

    judge: str
    first: Opinion
    second: Opinion
    forward: float  # P(the opinion shown first is better), with `first` shown first
    backward: float  # the same, with `second` shown first

    @property
    def p_first(self) -> float:
        """P(`first` is better), averaged over both orders."""
        return 0.5 * (self.forward + 1.0 - self.backward)

    @property
    def order_gap(self) -> float:
        """P(first, second) + P(second, first) - 1: above 0 for who favours what is shown first."""
        return self.forward + self.backward - 1.0

    @property
    def flipped(self) -> bool:
        """Whether the better one was another when the order was."""
        return (self.forward - 0.5) * (self.backward - 0.5) > 0

    def swapped(self) -> Label:
        """The same answers, told the other way round."""
        return Label(self.judge, self.second, self.first, self.backward, self.forward)


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval, in which all labels of one moment count as one draw."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray, clusters: np.ndarray) -> Estimate:
        """Of values (N,) in clusters (N,). NaN values are left out; fewer than two clusters have no interval."""
        there = np.isfinite(values)
        mean = float(values[there].mean()) if there.any() else np.nan
        error = standard_error(values, clusters)
        return cls(mean, mean - Z95 * error, mean + Z95 * error)


@dataclass(frozen=True)
class Noise:
    """How often a label is wrong, where the right one cannot be seen: `eps` is what `label_smoothing` is for."""

    eps: float  # in [0, 0.5]; 0.5: the labels say nothing
    standard_error: float  # infinite at eps = 0.5, where disagreement tells nothing of it
    disagreement: float  # share of pairs that the two labellers see differently
    n_pairs: int


@dataclass(frozen=True)
class LabelReport:
    """How a judge labels. Rates are in [0, 1]; NaN where there is nothing to tell them from."""

    judge: str
    n_labels: int
    position_bias: Estimate  # mean order gap; 0 for who does not care what stands first
    flips: Estimate  # share of pairs whose better one was another when the order was
    agreement: Estimate  # share of pairs on which the judge and the outcomes agree; who cannot tell agrees by half
    noise: Noise  # of one answer: the judge held against itself in the other order, once the mean position bias is out


def ask(judge: Judge, first: Opinion, second: Opinion) -> Label:
    """Ask in both orders. Raises `DataError` for two questions, one opinion twice, or an answer that is no probability."""
    questions = [(o.symbol, o.as_of, o.horizon_bars, o.prompt_hash) for o in (first, second)]
    if questions[0] != questions[1]:
        raise DataError(f"{judge.name} is asked to compare answers to {questions[0]} and to {questions[1]}; expected one question")
    if first == second:
        raise DataError(f"{judge.name} is asked to compare {first.voice.name} on {first.symbol} with itself; expected two opinions")
    answers = judge.compare(first, second), judge.compare(second, first)
    for answer in answers:
        if not 0.0 <= answer <= 1.0:
            raise DataError(f"{judge.name} answers {answer} on {first.symbol} at {first.as_of}; expected a probability in [0, 1]")
    return Label(judge.name, first, second, *answers)


def report(labels: Sequence[Label], margins: Sequence[float] | np.ndarray | None = None) -> LabelReport:
    """What many labels of one judge say of it.

    Parameters
    ----------
    margins : (N,) by how much `first` was better than `second` by the outcomes, > 0 where it was; NaN or 0 where they do
        not tell. Without it there is no agreement.

    Raises `DataError` for no labels, those of several judges, or another number of margins.
    """
    judges = sorted({label.judge for label in labels})
    if len(judges) != 1:
        raise DataError(f"{len(labels)} labels by {len(judges)} judges, {judges}; expected some, all by one judge")
    if margins is not None and len(margins) != len(labels):
        raise DataError(f"{len(margins)} margins for {len(labels)} labels; expected one for each")
    moments = np.array([label.first.as_of for label in labels], "datetime64[us]")
    gap = np.array([label.order_gap for label in labels])
    bias = Estimate.of(gap, moments)
    forward, backward = (np.array([getattr(label, name) for label in labels]) for name in ("forward", "backward"))
    truth = np.full(len(labels), np.nan) if margins is None else np.asarray(margins, np.float64)
    side = np.sign([label.p_first - 0.5 for label in labels])
    agreement = np.where(np.isfinite(truth) & (truth != 0), 0.5 + 0.5 * side * np.sign(truth), np.nan)
    half = 0.5 * bias.value
    return LabelReport(
        judges[0], len(labels), bias, Estimate.of(np.array([label.flipped for label in labels], float), moments),
        Estimate.of(agreement, moments), noise_of(forward - half > 0.5, backward - half <= 0.5, moments),
    )  # fmt: skip


def labelled(labels: Iterable[Label], *, tie: float, asked_at: np.datetime64) -> list[Preference[Opinion]]:
    """Labels as preferences, in their order; the margin is P(chosen better) - P(rejected better) over both orders.

    Parameters
    ----------
    tie : margins below it are left out: the judge cannot tell.
    asked_at : when the judge was asked, from when the labels may be learnt from: it may know what had happened by then.
    """
    if not 0 < tie <= 1:
        raise DataError(f"tie is {tie}; expected a difference of probabilities in (0, 1] below which the judge cannot tell")
    out = []
    for label in labels:
        first = label.first
        if asked_at < first.as_of:
            raise DataError(f"{label.judge} was asked at {asked_at} of opinions of {first.as_of}, which are later; turn asked_at")
        margin = 2.0 * label.p_first - 1.0
        if abs(margin) >= tie:
            told = Preference(first.symbol, first.as_of, first.prompt_hash, first, label.second, margin, label.judge, asked_at)
            out.append(told if margin > 0 else told.swapped())
    return out


def noise_of(a: np.ndarray, b: np.ndarray, clusters: np.ndarray | None = None) -> Noise:
    """Error rate of two labellers that are wrong equally often, on either side, and independently of each other.

    They disagree where exactly one is wrong, with probability d = 2 eps (1 - eps), so eps = (1 - sqrt(1 - 2 d)) / 2 (Dawid
    and Skene 1979, two raters of one symmetric error rate). With d of a half or more, eps is 0.5.

    Parameters
    ----------
    a, b : (P,) bool: whether each says that the first of the pair is better.
    clusters : (P,) pairs that are one draw for the standard error (one date, say); None: every pair is its own.
    """
    if a.shape != b.shape or a.dtype != bool or b.dtype != bool:
        raise DataError(f"labels {a.dtype}{a.shape} and {b.dtype}{b.shape}; expected two bool arrays over the same pairs")
    if not len(a):
        return Noise(np.nan, np.nan, np.nan, 0)
    apart = (a != b).astype(np.float64)
    d = float(apart.mean())
    error = standard_error(apart, np.arange(len(apart)) if clusters is None else clusters)
    slope = np.sqrt(max(1.0 - 2.0 * d, 0.0))  # d eps / d d = 1 / (2 sqrt(1 - 2 d))
    return Noise(0.5 * (1.0 - slope), error / (2.0 * slope) if slope else np.inf, d, len(a))


def timing_noise(now: PairTable, one_bar_later: PairTable, *, rows: slice) -> Noise:
    """How noisy outcomes are as labels of pairs, for it is chance on which bar the clock is started.

    The same opinions are judged from their own bar and from the next, against each other and against the climatological
    forecast: two labellers, see `noise_of`. It is an upper bound of the noise that lies in the first and last bar, for true
    news of that bar counts as noise. Of the bars that both share it says nothing: what is chance there moves both labels alike.

    Parameters
    ----------
    now : pairs of opinions opened at their own rows, by the metric and tie that are learnt from.
    one_bar_later : of the same opinions, as if they had been given one row later (`opinions_one_bar_later`, closed), by the
        same metric and tie. Who makes a pair at one of both times only has no second label, and does not count.
    rows : only pairs whose both outcomes lie in these rows (later closing row < stop) are looked at.
    """
    horizons = {h for table in (now, one_bar_later) for h in np.unique(table.closed_row - table.opened_row).tolist()}
    if len(horizons) > 1:
        raise DataError(f"pairs over {sorted(horizons)} bars; expected those of the same opinions at both times, over one horizon")
    first = now.take((now.opened_row >= rows.start) & (now.closed_row + 1 < rows.stop))
    at, then = _matched(first, replace(one_bar_later, opened_row=one_bar_later.opened_row - 1))
    alike = first.chosen[at] == one_bar_later.chosen[then]
    return noise_of(np.ones(len(at), bool), alike, first.opened_row[at])


def _matched(a: PairTable, b: PairTable) -> tuple[np.ndarray, np.ndarray]:
    """Indices into both of the pairs that are in both: opened at one row, of one symbol and the same two sides, whoever won."""
    both = together(a, b)
    low, high = np.minimum(both.chosen, both.rejected) + 1, np.maximum(both.chosen, both.rejected) + 1  # 0: climatology
    assets, sides = int(both.asset.max(initial=0)) + 1, int(high.max(initial=0)) + 1
    keys = ((both.opened_row * assets + both.asset) * sides + low) * sides + high
    _, at, then = np.intersect1d(keys[: len(a)], keys[len(a) :], assume_unique=True, return_indices=True)
    return at, then


def opinions_one_bar_later(opinions: OpinionTable, cube: Cube) -> OpinionTable:
    """The same words, as if they had been given at the next decision moment of the cube; the last row has none."""
    row = np.searchsorted(cube.known_at, opinions.as_of) + 1
    there = row < len(cube.times)
    dated = {name: getattr(opinions, name) for name in ("p_up", "quantiles", "prompts", "traits")}
    kept = {name: None if x is None else x[there] for name, x in dated.items()}
    return replace(opinions, as_of=cube.known_at[row[there]], **kept)
