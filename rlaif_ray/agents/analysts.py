"""The roster of the desk, and how a row of it becomes an analyst. A new analyst is a row here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif_ray.agents import rule_analysts
from rlaif_ray.agents.rule_analysts import Evidence, Finding
from rlaif_ray.core import Abstention, Claim, Cube, MarketView, Opinion, Portfolio
from rlaif_ray.errors import ConfigError, did_you_mean

# p_up = sigmoid(slope x score): one standard deviation moves p_up by 3.7 points, as an information coefficient near 0.1
# over the horizon would. More would be boasting: a log score punishes false certainty.
LOGIT_PER_DEVIATION = 0.15
WIDEST_WEIGHT = 0.30  # of equity: what a caution's share is a share of


@dataclass(frozen=True)
class Row:
    """One seat on the desk."""

    name: str
    needs: tuple[str, ...]  # features without which it abstains
    likes: tuple[str, ...]  # features that it uses where they are
    rule: Callable[[Evidence], Finding]


ROSTER: tuple[Row, ...] = (
    Row("fundamental", ("filing_score", "filing_age_bars"), (), rule_analysts.fundamental),
    Row("sentiment", ("news_score", "news_age_bars"), (), rule_analysts.sentiment),
    Row("technical", ("ret_5_excess", "vol_21"), ("rsi_14", "volume_z_21"), rule_analysts.technical),
    Row("risk", ("vol_21",), ("drawdown_252",), rule_analysts.risk),
)


def rows_of(names: Iterable[str]) -> tuple[Row, ...]:
    """Roster rows by name, in the order asked for."""
    known = {row.name: row for row in ROSTER}
    for name in names:
        if name not in known:
            raise ConfigError(f"no analyst {name!r} on the roster; expected some of {', '.join(known)}.{did_you_mean(name, known)}")
    return tuple(known[name] for name in names)


def reads(names: Iterable[str]) -> tuple[str, ...]:
    """Features that these analysts look at, each once: what a cube should hold for them."""
    return tuple(dict.fromkeys(f for row in rows_of(names) for f in (*row.needs, *row.likes)))


class RuleAnalyst:
    """An `Analyst` that follows one rule. It says something on every symbol: an opinion, or why it has none."""

    def __init__(self, row: Row, *, horizon_bars: int) -> None:
        self.row, self.horizon_bars = row, horizon_bars
        self.name = row.name

    def opine(self, views: Sequence[MarketView]) -> list[Opinion | Abstention]:
        """For each view in turn, one opinion or abstention per symbol, in the order of the view's symbols."""
        return [said for view in views for said in self._opine(view)]

    def _opine(self, view: MarketView) -> list[Opinion | Abstention]:
        absent = [f for f in self.row.needs if f not in view.feature_names]
        if absent:
            return [self._abstain(view, s, f"this data set has no {' and no '.join(absent)}") for s in view.symbols]
        used = [f for f in (*self.row.needs, *self.row.likes) if f in view.feature_names]
        seen = {f: view.feature(f).astype(np.float64) for f in used}
        finding = self.row.rule(seen)
        p_up = 1.0 / (1.0 + np.exp(-LOGIT_PER_DEVIATION * finding.score()))
        priced = np.isfinite(view.prices()[-1, :, 3])
        hashes = prompt_hashes(view, self.horizon_bars)
        out: list[Opinion | Abstention] = []
        for a, symbol in enumerate(view.symbols):
            unknown = [f for f in self.row.needs if np.isnan(seen[f][a])]
            if not priced[a]:
                out.append(self._abstain(view, symbol, "it has no price"))
            elif unknown:
                out.append(self._abstain(view, symbol, f"{' and '.join(unknown)} not known yet"))
            elif finding.silent is not None and finding.silent[a]:
                out.append(self._abstain(view, symbol, finding.why))
            else:
                out.append(self._opinion(view, symbol, a, float(p_up[a]), finding, seen, hashes[a]))
        return out

    def _opinion(
        self, view: MarketView, symbol: str, a: int, p_up: float, finding: Finding, seen: Evidence, prompt_hash: str
    ) -> Opinion:  # fmt: skip
        claims = []
        for term in finding.terms:
            push, value = float(term.push[a]), float(seen[term.feature][a])
            if push == push and value == value:
                lean = f", {push:+.2f} deviations" if push else ""
                claims.append(Claim(term.feature, value, f"{term.words}: {value:.4g}{lean}"))
        cap = None if finding.max_weight is None else WIDEST_WEIGHT * float(finding.max_weight[a])
        way = "up" if p_up > 0.5 else "down"
        narrative = f"{self.name} sees {symbol} {way} against the universe in {self.horizon_bars} bars, p {p_up:.3f}"
        return Opinion(self.name, view.as_of, symbol, self.horizon_bars, p_up, tuple(claims), narrative, prompt_hash, cap)

    def _abstain(self, view: MarketView, symbol: str, reason: str) -> Abstention:
        return Abstention(self.name, view.as_of, symbol, self.horizon_bars, reason)


def prompt_hashes(view: MarketView, horizon_bars: int) -> list[str]:
    """(A,) hash of the question (symbol, moment, horizon) and of the evidence: every feature that was known.

    The same for all analysts of a moment, for they were all asked the same thing; what they read of it is their affair.
    """
    evidence = view.features()[-1]
    evidence = np.where(np.isnan(evidence), np.float32(np.nan), evidence)  # one NaN, whatever its payload
    head = hashlib.sha256(f"{view.as_of}/{horizon_bars}/{view.feature_names}".encode())
    out = []
    for symbol, row in zip(view.symbols, evidence, strict=True):
        digest = head.copy()
        digest.update(symbol.encode())
        digest.update(row.tobytes())
        out.append(digest.hexdigest()[:16])
    return out


def opinion_row(t: int, every_bars: int) -> int:
    """The row whose opinions are on the table at row t: the last multiple of `every_bars`, counted from the cube's first row.

    Counting from the first row keeps the phase as data grows at its end, so what is served at t is what was judged at t.
    """
    return t - t % every_bars


def view_at(cube: Cube, row: int) -> MarketView:
    """What an analyst sees at a row: the market, and no portfolio, for an opinion must not depend on what is held."""
    nothing = Portfolio(cube.known_at[row], cube.symbols, 0.0, np.zeros(len(cube.symbols)), cube.close[row])
    return MarketView(cube, row, nothing)
