"""Sentiment without weights: VADER's rules over its words, and over the words and phrases of company news, which it does not know."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from rlaif_ray.core import content_hash
from rlaif_ray.text.protocols import Label

NEUTRAL = 0.05  # VADER's authors take a compound score between -0.05 and 0.05 for neutral

# Written for this project, on VADER's scale from -4 to 4. Where VADER has the word too, this is what it means in company news.
_WORDS: dict[float, str] = {
    3.0: "soar soars soared soaring skyrocket skyrockets skyrocketed outperform outperforms outperformed outperforming blockbuster",
    2.5: "surge surges surged surging rally rallies rallied rallying jump jumps jumped jumping upgrade upgrades upgraded windfall "
         "rebound rebounds rebounded rebounding outsell outsells outsold breakthrough turnaround",
    2.0: "beat beats beating exceed exceeds exceeded exceeding climb climbs climbed climbing gain gains gained profitable upbeat bullish "
         "accelerate accelerates accelerated accelerating expand expands expanded expanding boost boosts boosted boosting lift lifts "
         "lifted double doubles doubled triple triples tripled record buyback buybacks raise raises raised raising approve approves "
         "approved approval approvals clears cleared win wins won recover recovers recovered recovery recovering top tops topped",
    1.5: "rise rises rose rising grow grows grew growing growth improve improves improved improving improvement strong stronger "
         "strongest strength robust solid widen resume resumes resumed ease eases eased easing upside higher increase increases "
         "increased increasing partnership contract order orders secure secures secured ahead overweight momentum profit profits",
    -1.5: "fall falls fell falling drop drops dropped dropping decline declines declined declining lower weak weaker weakest weaken "
          "weakens weakened weakness slow slows slowed slower slowdown slip slips slipped dip dips dipped miss misses missed missing "
          "cut cuts cutting delay delays delayed suspend suspends suspended pressure pressures squeeze squeezes squeezed underweight "
          "headwind headwinds challenging shortage shortages disruption disruptions weigh weighs weighed drag drags softer cancel "
          "cancels cancelled canceled uncertainty resign resigns resigned postpone postpones postponed",
    -2.0: "loss losses warn warns warned warning probe probes probed investigate investigates investigated investigation lawsuit "
          "lawsuits sue sues sued antitrust recall recalls recalled halt halts halted strike strikes sink sinks sank slide slides slid "
          "tumble tumbles tumbled tumbling underperform underperforms underperformed layoff layoffs downbeat bearish subpoena shortfall "
          "restate restates restated restatement fine fined fines penalty penalties breach breaches deficit outage reject rejects "
          "rejected fail fails failed failing failure writedown impairment impairments slash slashes slashed slashing terminate "
          "terminates terminated withdraw withdraws withdrew",
    -2.5: "plunge plunges plunged plunging slump slumps slumped slumping downgrade downgrades downgraded selloff plummet plummets "
          "plummeted crash crashes crashed collapse collapses collapsed misleading halve halves halved",
    -3.0: "default defaults defaulted insolvent insolvency fraud fraudulent delist delisted delisting",
    -3.5: "bankrupt bankruptcy bankruptcies liquidation",
}  # fmt: skip

# Feelings in conversation, plain words in company news.
_PLAIN = """
    share shares gross debt debts interest interests interested credit credits security securities energy united crude trust mature
    alert asset assets value values bonus agreement agreements natural care healthy vision heart kill special safe safety matter
    matters number please like well fresh join demand demands fire opposition tank tanks charge charges liability liabilities create
    creates help defense resolved bright grand best play kind vice block novel reach want party gas challenge hand
"""

_GAP = r"(?:[\w'\u2019&$%.-]+\s+){0,3}?"
_EXPECTED = r"(?:estimates?|expectations?|forecasts?|consensus|views?|targets?)"
_PLANS = r"(?:guidance|outlook|forecasts?|targets?|dividend|payout)"
_UP, _DOWN = r"(?:lift|raise|boost|hike|increase)(?:s|d|ed)?", r"(?:cut|slash|lower|trim|reduce|scrap|withdraw|suspend)(?:s|ed|d)?"
# What only the phrase says. A phrase is one word to VADER's rules, so that "did not beat estimates" is turned like any other.
_PHRASES: tuple[tuple[str, float], ...] = (
    (rf"(?:beat|top|exceed|surpass|outpace)(?:s|ped|ed|ing|ping)?\s+{_GAP}{_EXPECTED}", 3.0),
    (rf"(?:above|ahead of|better than)\s+{_GAP}{_EXPECTED}", 2.0),
    (rf"(?:miss|trail|lag)(?:es|ed|s|ging|ing)?\s+{_GAP}{_EXPECTED}", -3.0),
    (rf"(?:below|short of|worse than)\s+{_GAP}{_EXPECTED}", -2.0),
    (rf"in line with\s+{_GAP}{_EXPECTED}", 0.0),
    (rf"{_UP}\s+{_GAP}{_PLANS}", 3.0),
    (rf"{_DOWN}\s+{_GAP}{_PLANS}", -3.0),
    (r"(?:profit|revenue|sales|earnings) warnings?", -3.0),
    (r"(?:narrow|trim|reduce|cut)(?:s|ed|d)?\s+(?:its\s+|net\s+)*loss(?:es)?", 2.0),
    (r"(?:swing|return|swung)(?:s|ed)? to (?:a )?profit", 2.5),
    (r"(?:swing|swung|slip|fall|sink)(?:s|ed)? to (?:a )?loss", -2.5),
    (r"into the red", -2.0),
    (r"into the black", 2.0),
    (r"(?:all-time|record|multi-year|[\w-]+-(?:year|month|week)) highs?", 2.5),
    (r"(?:all-time|record|multi-year|[\w-]+-(?:year|month|week)) lows?", -2.5),
    (r"(?:record|effective) dates?", 0.0),
    (r"(?:costs?|expenses|losses|bad debts)\s+(?:fall|falls|fell|drop|drops|ease|eases|decline|declines)", 1.5),
    (r"(?:costs?|expenses|losses|bad debts)\s+(?:rise|rises|rose|soar|soars|soared|jump|jumps|climb|climbs|surge|surges)", -2.0),
    (r"(?:stock|share) (?:buyback|repurchase)s?", 2.0),
    (r"(?:lay off|lays off|job cuts|cuts? \d* ?jobs)", -2.0),
    (r"(?:writes?|wrote) (?:down|off)", -2.0),
    (r"(?:short seller|short-seller)", -2.0),
    (r"(?:class action|going concern|chapter 11|stress test failure)", -3.0),
    (r"green light", 2.0),
    (r"(?:to|cut to) junk", -2.5),
    (r"investment grade", 1.5),
    (r"(?:interest |mortgage )rates? (?:fall|falls|fell|drop|drops|dropped)", 1.0),
    (r"(?:surge|jump|rise|increase|spike) in (?:bad debts|bad loans|costs|debts|losses|expenses|defaults|claims)", -2.0),
    (r"(?:stock|share) splits?", 0.0),
    (r"approves? (?:a |its )?(?:stock|share) splits?", 0.0),
    (r"no changes?", 0.0),
    (r"(?:more|higher|larger|faster) [\w\s]*than ever", 2.0),
    (r"(?:less|fewer|slower|lower) [\w\s]*than ever", -2.0),
)
_PHRASE = re.compile("|".join(rf"(?P<p{k}>\b{pattern}\b)" for k, (pattern, _) in enumerate(_PHRASES)), re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\s*\n\s*")


class Lexicon:
    """VADER (Hutto and Gilbert 2014, ICWSM) with the words and phrases of company news; its negations and intensifiers hold for all.

    Of a text the score is the mean of its sentences' compound scores, the confidence the share of its words that carry
    sentiment: 0 where none is known, of which a mean weighted by confidence takes no notice.
    """

    name = "lexicon"

    def __init__(self) -> None:
        self._rules = SentimentIntensityAnalyzer()
        for word in _PLAIN.split():
            self._rules.lexicon.pop(word, None)
        self._rules.lexicon |= {word: valence for valence, words in _WORDS.items() for word in words.split()}
        self._rules.lexicon |= {_token(f"p{k}"): valence for k, (_, valence) in enumerate(_PHRASES)}
        self.fingerprint = content_hash((self._rules.lexicon, _PHRASES))

    def score(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(score (N,) in [-1, 1], confidence (N,) in [0, 1]), float32."""
        said = np.array([self._of(text) for text in texts], np.float32).reshape(-1, 2)
        return said[:, 0], said[:, 1]

    def classify(self, texts: Sequence[str]) -> list[Label]:
        return ["positive" if s > NEUTRAL else "negative" if s < -NEUTRAL else "neutral" for s in self.score(texts)[0]]

    def _of(self, text: str) -> tuple[float, float]:
        sentences = [self._rules.polarity_scores(_PHRASE.sub(_joined, s)) for s in _SENTENCE.split(text) if s.strip()]
        if not sentences:
            return 0.0, 0.0
        score, confidence = (sum(s["compound"] for s in sentences), sum(s["pos"] + s["neg"] for s in sentences))
        return score / len(sentences), min(1.0, confidence / len(sentences))


def _joined(match: re.Match[str]) -> str:
    return _token(str(match.lastgroup))


def _token(name: str) -> str:
    return f"phrase_{name}"
