"""The thesis policy as an analyst of the desk: what it writes becomes opinions that outcomes can judge like anyone else's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif_ray.core import Abstention, Cube, MarketView, Opinion
from rlaif_ray.errors import SchemaError
from rlaif_ray.feedback.thesis_market import SOURCES, thesis_features
from rlaif_ray.feedback.thesis_policy import Draft, ThesisPolicy, thesis_of

PromptHashes = Callable[[MarketView, int], Sequence[str]]  # of the desk's questions at a view, by symbol


@dataclass(frozen=True)
class Written:
    """The likeliest theses on all symbols of one moment, and which of them are spoken: those that are `known` and not `faulty`."""

    draft: Draft
    p_up: np.ndarray  # (A,) calibrated
    known: np.ndarray  # (A,) bool: enough features are there to write of
    faulty: np.ndarray  # (A,) bool: the draft breaks a rule of its form


def written(policy: ThesisPolicy, features: np.ndarray, min_features: int) -> Written:
    """From the features (A,F) of one moment: all symbols at once, so that a moment is the same batch whoever asks."""
    draft, p_up = policy.predict(features)
    form, observed = policy.form, np.isfinite(features)
    faults = form.faults(*draft, form.known_claims(observed), form.open_sections(observed))
    return Written(draft, p_up, np.asarray(observed.sum(axis=1) >= min_features), np.asarray(faults.any(axis=1)))


class ThesisAnalyst:
    """An `Analyst` that writes the likeliest thesis of a trained policy. It says something on every symbol, if only why it cannot.

    Parameters
    ----------
    policy : trained, and calibrated on validation.
    horizon_bars : that it was trained for.
    min_features : with fewer of them known it abstains.
    prompt_hashes : how the desk hashes what was asked (minds never import each other), so that its opinions stand beside
        those of the rules on the same question.
    sources : column of the cube by feature, as in `thesis_features`.
    """

    name = "thesis"

    def __init__(
        self, policy: ThesisPolicy, *, horizon_bars: int, min_features: int, prompt_hashes: PromptHashes,
        sources: Mapping[str, str] = SOURCES,
    ) -> None:  # fmt: skip
        self.policy, self.horizon_bars, self.min_features = policy, horizon_bars, min_features
        self.sources, self._prompt_hashes = dict(sources), prompt_hashes
        self.model = f"thesis-{policy.state_hash}"

    def opine(self, views: Sequence[MarketView]) -> list[Opinion | Abstention]:
        """For each view in turn, one opinion or abstention per symbol, in the order of the view's symbols."""
        return [said for view in views for said in self._opine(view)]

    def p_up(self, cube: Cube, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """(R,A) what `opine` says at each row, bit for bit; NaN where it abstains."""
        features = thesis_features(cube, self.sources, self.policy.form.features)
        told = [written(self.policy, features[row], self.min_features) for row in rows]
        return np.stack([np.where(w.known & ~w.faulty, w.p_up, np.nan) for w in told]) if told else np.empty((0, len(cube.symbols)))

    def _opine(self, view: MarketView) -> list[Opinion | Abstention]:
        form = self.policy.form
        features = thesis_features(view.history(), self.sources, form.features)[-1]
        told, hashes = written(self.policy, features, self.min_features), self._prompt_hashes(view, self.horizon_bars)
        out: list[Opinion | Abstention] = []
        for a, symbol in enumerate(view.symbols):
            if not view.listed[a]:
                out.append(self._abstain(view, symbol, "it has no price"))
            elif not told.known[a]:
                known = int(np.isfinite(features[a]).sum())
                reason = f"{known} of {len(form.features)} features are known; {self.min_features} are needed"
                out.append(self._abstain(view, symbol, reason))
            else:
                draft = Draft(*(part[a] for part in told.draft))
                out.append(self._opinion(view, symbol, features[a], draft, float(told.p_up[a]), hashes[a]))
        return out

    def _opinion(
        self, view: MarketView, symbol: str, features: np.ndarray, draft: Draft, p_up: float, prompt_hash: str
    ) -> Opinion | Abstention:  # fmt: skip
        try:
            thesis = thesis_of(self.policy.form, features, draft, p_up)
        except SchemaError as error:
            return self._abstain(view, symbol, str(error))
        form = self.policy.form
        return Opinion(
            self.name, view.as_of, symbol, self.horizon_bars, p_up, thesis.evidence(form), thesis.narrative(form), prompt_hash,
            origin="thesis", model=self.model,
        )  # fmt: skip

    def _abstain(self, view: MarketView, symbol: str, reason: str) -> Abstention:
        return Abstention(self.name, view.as_of, symbol, self.horizon_bars, reason)
