"""How good the judge and the analysts were on dates that nothing was fitted on, with intervals that respect dates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri

from rlaif_ray.backtest.power import ONE_SIDED
from rlaif_ray.core import OpinionTable
from rlaif_ray.errors import DataError
from rlaif_ray.feedback.intervals import Interval, clustered_interval, clusters_of, effective
from rlaif_ray.feedback.outcomes import OutcomeTable
from rlaif_ray.feedback.preferences import PairTable
from rlaif_ray.feedback.raters import author_average, beside_raters, gaps, rewards_on, right
from rlaif_ray.feedback.reward_model import RewardModel, Settings
from rlaif_ray.feedback.reward_questions import OUTCOME, traits_of

HELD_OUT = 0.2  # share of the dates, the latest
SKILL = 0.05  # an information coefficient that would be worth having
POWER = 0.8
BINS = 10


class Split(NamedTuple):
    """Pairs to learn from and later ones to be judged on."""

    rows: slice  # of the cube: all that the earlier pairs know
    earlier: PairTable
    later: PairTable


def split_held_out(pairs: PairTable, share: float = HELD_OUT, embargo: int = 0) -> Split:
    """The last `share` of the dates are held out, and what closes in them, or less than `embargo` bars before, is purged from the rest."""
    dates = np.unique(pairs.opened_row)
    if len(dates) < 2:
        return Split(slice(0, int(pairs.closed_row.max(initial=-1)) + 1), pairs, pairs.take(np.zeros(len(pairs), bool)))
    first = int(dates[min(int(np.ceil(len(dates) * (1.0 - share))), len(dates) - 1)])
    rows = slice(int(dates[0]), first - embargo)
    return Split(rows, pairs.inside(rows), pairs.take(pairs.opened_row >= first))


def held_out(
    context: np.ndarray, outcomes: OutcomeTable, opinions: OpinionTable, pairs: PairTable, settings: Settings, *, min_pairs: int,
    resamples: int, seed: int, raters: bool = True, embargo: int = 0, smoothing: Callable[[slice], float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """How good a judge is on later dates that was fitted on the earlier ones.

    Parameters
    ----------
    embargo : bars between the last close that is learnt from and the first date that is held out.
    smoothing : share of labels to be taken as wrong by who learns from some rows of the cube, asked of the earlier ones alone
        (`lessons.LabelNoise.smoothing`); None: as in the settings.
    raters : fit those beside it too; they cost about as much as the judge each.

    Returns
    -------
    Accuracy on the later pairs of two voices, and the same with each pair counted by its margin, as it was learnt; that of
    always preferring the author with the higher mean score before, and the gain over that, and over each rater that sees
    less; on pairs against the climatological forecast apart; how many independent pairs there were and what they could
    show; how well the probabilities were calibrated. None where there are too few pairs to fit or to judge.
    """
    rows, earlier, later = split_held_out(pairs, embargo=embargo)
    duels = later.take(later.rivals)
    if len(earlier) < min_pairs or not len(duels):
        return {"n_pairs": len(duels), "accuracy": None, "author_average": None, "gain": None}
    settings = settings if smoothing is None else replace(settings, label_smoothing=smoothing(rows))
    model = RewardModel(settings).fit(context, opinions, earlier)
    drawn: dict[str, Any] = {"resamples": resamples, "seed": seed}
    ours = right(gaps(rewards_on(model, context, opinions, duels), duels))
    average = author_average(outcomes, earlier)
    theirs = right(gaps(np.broadcast_to(average, (len(duels), len(average))), duels))
    groups = clusters_of(duels.opened_row, outcomes.horizon_bars)
    margin = duels.margin / duels.margin.mean()
    names = {"accuracy": ours, "by_margin": ours * margin, "author_average": theirs, "gain": ours - theirs}
    beside = beside_raters(ours, context, opinions, earlier, duels, settings, horizon_bars=outcomes.horizon_bars, **drawn) if raters else {}
    return {
        "n_pairs": len(duels),
        **{name: clustered_interval(x, groups, **drawn) for name, x in names.items()},
        "beside": beside,
        "climatology": _against_climatology(model, context, opinions, later.take(~later.rivals), outcomes.horizon_bars, drawn),
        "power": asdict(power_of(ours, groups)),
        "calibration": calibration(model, context, opinions, duels),
    }


def claims_skill(record: Mapping[str, Any] | None) -> bool:
    """Whether one held-out record, by itself, shows skill: right more often than chance, than the author average, than every rater.

    Each by the lower end of its 95% interval. Looking at many records makes one that claims likelier.
    """
    if record is None or record["accuracy"] is None:
        return False
    gains = [record["gain"], *(found["gain"] for found in record.get("beside", {}).values())]
    return bool(record["accuracy"]["low"] > 0.5 and all(gain["low"] > 0.0 for gain in gains))


# --- how much was there to see ---


@dataclass(frozen=True)
class PairPower:
    """What held-out pairs could show at 5%, one-sided, in four of five cases."""

    n_effective: float  # independent pairs that say as much
    needed: float  # of them, to see an information coefficient of `SKILL`
    accuracy: float  # the smallest that these would show
    ic: float  # and the information coefficient that it belongs to
    said: str


def accuracy_at(ic: float) -> float:
    """How often a pair is right at an information coefficient: 1/2 + asin(ic) / pi, for two normal variables (Sheppard 1899)."""
    return 0.5 + float(np.arcsin(ic)) / np.pi


def pairs_needed(ic: float, power: float = POWER) -> float:
    """Independent pairs at which an accuracy above a half is seen at 5%, one-sided, with probability `power`.

    (z_0.95 + z_power)^2 / 4 over the square of what is above a half: Bloom (1995), with the variance of a fair coin.
    """
    return float(((ONE_SIDED + ndtri(power)) * 0.5 / (accuracy_at(ic) - 0.5)) ** 2)


def power_of(right: np.ndarray, clusters: np.ndarray) -> PairPower:
    """Of held-out pairs that were right (P,) or not, in clusters (P,) of dates."""
    count, needed = effective(right, clusters), pairs_needed(SKILL)
    above = float((ONE_SIDED + ndtri(POWER)) * 0.5 / np.sqrt(count))
    seen = min(0.5 + above, 1.0)
    rule = f"with an information coefficient of {SKILL:g} a pair is right {100 * accuracy_at(SKILL):.1f}% of the time"
    rule += f" and about {round(needed, -2):,.0f} independent pairs are needed to see it"
    if not count >= needed:
        there = "too few dates to count them" if np.isnan(count) else f"only {count:,.0f}, which show {100 * seen:.1f}% or more"
        said = f"{rule}; there are fewer here: {there}"
    else:
        said = f"{rule}; there are {count:,.0f} here"
    return PairPower(count, needed, seen, float(np.sin(np.pi * (seen - 0.5))), said)


# --- are its probabilities probabilities ---


def calibration(model: RewardModel, context: np.ndarray, opinions: OpinionTable, pairs: PairTable) -> dict[str, Any] | None:
    """How often the favourite of a pair was right, beside how likely the model said it was: the outcome head, mean of members.

    Pairs count by their margin, as they were learnt. None for a model without an outcome head.
    """
    if OUTCOME not in model.heads:
        return None
    at, traits = (pairs.date, pairs.asset), traits_of(opinions, model.settings.traits)
    head = model.by_member(context[at], opinions.p_up[at], None if traits is None else traits[at])
    gap = gaps(head[..., model.heads.index(OUTCOME)].mean(axis=0), pairs)
    return calibration_of(1.0 / (1.0 + np.exp(-np.abs(gap))), right(gap), pairs.margin)


def calibration_of(said: np.ndarray, came: np.ndarray, weight: np.ndarray, bins: int = BINS) -> dict[str, Any]:
    """Curve of probabilities (P,) against what came true (P,), each counted by a weight (P,), in bins of about equally many.

    The expected error is the mean distance of the two over the bins, by their weights (Naeini et al. 2015).
    """
    parts = [part for part in np.array_split(np.argsort(said, kind="stable"), bins) if len(part)]
    curve = [{"said": float(np.average(said[p], weights=weight[p])), "came": float(np.average(came[p], weights=weight[p])), "n": len(p)}
             for p in parts]  # fmt: skip
    mass = [weight[p].sum() / weight.sum() for p in parts]
    error = sum(m * abs(b["said"] - b["came"]) for m, b in zip(mass, curve, strict=True))
    return {"bins": curve, "expected_error": float(error)}


# --- who was right ---


def paired_gain(a: np.ndarray, b: np.ndarray, rows: np.ndarray, horizon_bars: int, *, resamples: int, seed: int) -> Interval:
    """Mean of by how much scores `a` are better than `b`, with its interval: over all entries at which both are known.

    Parameters
    ----------
    a, b : (D,A) or (D,) on the same dates and names; NaN where there is none.
    rows : (D,) at which the dates opened, over `horizon_bars`; see `clusters_of`.

    Raises `DataError` where the shapes do not fit.
    """
    if a.shape != b.shape or rows.shape != a.shape[:1]:
        raise DataError(f"scores {a.shape} and {b.shape} of dates {rows.shape}; expected (D,A), (D,A) and (D,)")
    difference = a - b
    groups = np.broadcast_to(clusters_of(rows, horizon_bars).reshape(-1, *[1] * (difference.ndim - 1)), difference.shape)
    return clustered_interval(difference.reshape(-1), groups.reshape(-1), resamples=resamples, seed=seed)


def track_records(outcomes: OutcomeTable, p_up: np.ndarray, rows: slice, *, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
    """Each author over the opinions that opened in `rows`: how many, abstentions, mean score and hit rate with intervals."""
    chosen = (outcomes.opened_row >= rows.start) & (outcomes.opened_row < rows.stop)
    groups = np.repeat(clusters_of(outcomes.opened_row[chosen], outcomes.horizon_bars), len(outcomes.symbols))
    out = {}
    for k, author in enumerate(outcomes.authors):
        said = np.isfinite(p_up[chosen, :, k])
        score, hit, net = (x[chosen, :, k].reshape(-1) for x in (outcomes.score, outcomes.hit, outcomes.net))
        out[author] = {
            "n_opinions": int(said.sum()), "n_abstentions": int((~said).sum()), "n_closed": int(np.isfinite(score).sum()),
            "score": clustered_interval(score, groups, resamples=resamples, seed=seed),
            "hit_rate": clustered_interval(hit, groups, resamples=resamples, seed=seed),
            "net": clustered_interval(net, groups, resamples=resamples, seed=seed),
        }  # fmt: skip
    return out


def _against_climatology(
    model: RewardModel, context: np.ndarray, opinions: OpinionTable, pairs: PairTable, horizon_bars: int, drawn: dict[str, Any]
) -> dict[str, Any] | None:  # fmt: skip
    """Whether it knows who is better than climatology; None where no pair says so."""
    if not len(pairs):
        return None
    ours = right(gaps(rewards_on(model, context, opinions, pairs), pairs))
    return {"n_pairs": len(pairs), "accuracy": clustered_interval(ours, clusters_of(pairs.opened_row, horizon_bars), **drawn)}
