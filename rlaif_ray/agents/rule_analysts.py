"""Four rules of thumb from the literature, each a plain function from what it sees to a standardised score.

Nothing here is fitted: every number is fixed and stands beside its source, so the rules are the same on every date. A
rule sees the cross-section of one moment and says, per symbol, how many standard deviations up it leans and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Evidence = Mapping[str, np.ndarray]  # feature -> (A,) float64 at the moment; NaN where not defined

FILING_BARS, NEWS_BARS = 20.0, 5.0  # what a filing, a news item says has faded to 1/e after so many bars
STALE = 3.0  # after so many of these times (5% left) there is nothing to speak about
LARGEST = 3.0  # a score beyond so many standard deviations counts as this many: outliers are data errors as often as news
LEAST_WEIGHT = 0.25  # the most volatile names keep this share of the cap


@dataclass(frozen=True)
class Term:
    """One reason: a feature, its value, how far it pushes and what it is."""

    feature: str
    push: np.ndarray  # (A,) standard deviations; NaN: this term has nothing to say on the symbol
    words: str


@dataclass(frozen=True)
class Finding:
    """What a rule makes of a moment. The score is the sum of the pushes that are there, so confidence stays modest whatever is fed in."""

    terms: tuple[Term, ...]
    max_weight: np.ndarray | None = None  # (A,) fraction of the allowed cap, in (0, 1]
    silent: np.ndarray | None = None  # (A,) bool: abstain on these, for the reason in `why`
    why: str = ""

    def score(self) -> np.ndarray:
        """(A,) standard deviations up, at most `LARGEST` either way."""
        return _clip(sum((np.where(np.isnan(t.push), 0.0, t.push) for t in self.terms), np.zeros_like(self.terms[0].push)))


def fundamental(seen: Evidence) -> Finding:
    """Prices drift in the direction of a filing's surprise for weeks (Bernard and Thomas 1989)."""
    return _fading(seen, "filing", FILING_BARS, "surprise of the last filing")


def sentiment(seen: Evidence) -> Finding:
    """Prices follow the tone of news for about a week (Tetlock, Saar-Tsechansky and Macskassy 2008)."""
    return _fading(seen, "news", NEWS_BARS, "tone of the last news")


def _fading(seen: Evidence, what: str, bars: float, words: str) -> Finding:
    score, age = seen[f"{what}_score"], seen[f"{what}_age_bars"]
    push = _clip(score) * np.exp(-age / bars)
    terms = Term(f"{what}_score", push, words), Term(f"{what}_age_bars", np.zeros_like(push), f"bars since; it fades over {bars:.0f}")
    return Finding(terms, silent=age > STALE * bars, why=f"the last {what} is more than {STALE * bars:.0f} bars old")


def technical(seen: Evidence) -> Finding:
    """Last week's losers against the market recover (Lehmann 1990), oversold names too; high volume precedes rises
    (Gervais, Kaniel and Mingelgrin 2001).

    The 5-bar excess return over sqrt(5) x 21-bar volatility is nearly standard normal; RSI(14) of a random walk has
    mean 50 and deviation near 10. It repeats part of what the return says, hence the smaller share.
    """
    reversal = -_clip(seen["ret_5_excess"] / (seen["vol_21"] * np.sqrt(5.0)))
    terms = [Term("ret_5_excess", 0.6 * reversal, "return of 5 bars over the universe's, against the volatility")]
    terms.append(Term("vol_21", np.zeros_like(reversal), "volatility a bar"))
    if "rsi_14" in seen:
        terms.append(Term("rsi_14", 0.2 * _clip((50.0 - seen["rsi_14"]) / 10.0), "relative strength index"))
    if "volume_z_21" in seen:
        terms.append(Term("volume_z_21", 0.6 * _clip(seen["volume_z_21"]), "volume in standard scores"))
    return Finding(tuple(terms))


def risk(seen: Evidence) -> Finding:
    """Volatile names earn less than they should (Ang, Hodrick, Xing and Zhang 2006), deep drawdowns run on (Jegadeesh
    and Titman 1993): a slight tilt. Its real word is the cap: weight inverse to volatility above the median.
    """
    volatility = seen["vol_21"]
    known = volatility[np.isfinite(volatility) & (volatility > 0)]
    median = float(np.median(known)) if len(known) else np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.log(volatility / median)
        cap = np.clip(median / volatility, LEAST_WEIGHT, 1.0)
    terms = [Term("vol_21", -0.3 * _clip(relative / 0.4), "volatility a bar, against the universe's median")]
    if "drawdown_252" in seen:
        terms.append(Term("drawdown_252", 0.3 * _clip((seen["drawdown_252"] + 0.15) / 0.15), "distance from the high of 252 bars"))
    return Finding(tuple(terms), max_weight=cap, silent=~(volatility > 0), why="it has not moved, so its risk cannot be told")


def _clip(z: np.ndarray) -> np.ndarray:
    return np.clip(z, -LARGEST, LARGEST)
