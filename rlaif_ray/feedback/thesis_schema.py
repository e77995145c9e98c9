"""What a thesis is: sections, claims and a decision, and the rules that make it a valid one.

The rules stand here once. `ThesisForm.faults` checks many theses at a time, as training needs it; the pydantic schema
`Thesis` asks the same function about its one. A claim whose input is missing cannot be made: it is absent, not false.
Axes: N theses, F features, S sections, C claims.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, ValidationInfo, model_validator

from rlaif_ray.core import Claim
from rlaif_ray.errors import ConfigError, SchemaError, did_you_mean

DECISIONS = ("strong_sell", "sell", "hold", "buy", "strong_buy")
SIGNS = np.array([-1, -1, 0, 1, 1])
FAULTS = (
    "a required section is missing",
    "a section tells of features that are all missing",
    "a claim stands outside its section",
    "a claim has no value behind it",
    "the decision has no claim for it and does not say so",
)

_OPERATORS: dict[str, Callable[[Any, float], Any]] = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}
_TERM = re.compile(r"\s*([A-Za-z_]\w*)\s*(>=|<=|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True)
class Rule:
    """Comparisons of a feature with a number, all of which must hold: `mom10 > 0 and f_sentiment < 0`."""

    terms: tuple[tuple[str, str, float], ...]  # (feature, operator, number)

    @classmethod
    def of(cls, text: str) -> Rule:
        """Read from text; nothing in it is ever executed. Raises `ConfigError` for what is no comparison."""
        found = [_TERM.fullmatch(part) for part in re.split(r"\band\b", text)]
        terms = tuple((m[1], m[2], float(m[3])) for m in found if m)
        if len(terms) < len(found):
            raise ConfigError(f"the claim says {text!r}; expected comparisons like 'mom10 > 0', joined by 'and'")
        return cls(terms)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Features that it reads, each once."""
        return tuple(dict.fromkeys(name for name, _, _ in self.terms))

    def holds(self, value: Callable[[str], Any]) -> Any:
        """Whether it is true of the features that `value(name)` gives; of a missing one (NaN) nothing is true."""
        true = _OPERATORS[self.terms[0][1]](value(self.terms[0][0]), self.terms[0][2])
        for name, sign, number in self.terms[1:]:
            true = true & _OPERATORS[sign](value(name), number)
        return true

    def __str__(self) -> str:
        return " and ".join(f"{name} {sign} {number:g}" for name, sign, number in self.terms)


@dataclass(frozen=True)
class SectionForm:
    name: str
    about: tuple[str, ...] = ()  # features; empty: it can always be written
    required: bool = False


@dataclass(frozen=True)
class ClaimForm:
    name: str
    rule: Rule
    supports: int  # the decision's sign that it speaks for; 0: neither
    section: str  # where it is told


@dataclass(frozen=True)
class ThesisForm:
    """Features, sections and claims by name: everything that a thesis may say. Checked once, here."""

    features: tuple[str, ...]  # (F,)
    sections: tuple[SectionForm, ...]  # (S,)
    claims: tuple[ClaimForm, ...]  # (C,)
    doubts: str  # the section in which a decision that no claim supports says so

    @classmethod
    def of(
        cls, features: Sequence[str], sections: Sequence[Mapping[str, Any]], claims: Sequence[Mapping[str, Any]], doubts: str
    ) -> ThesisForm:  # fmt: skip
        """From plain values: sections {name, about, required}, claims {name, says, supports, section}. Raises `ConfigError`."""
        return cls(
            tuple(features),
            tuple(SectionForm(s["name"], tuple(s["about"]), s["required"]) for s in sections),
            tuple(ClaimForm(c["name"], Rule.of(c["says"]), c["supports"], c["section"]) for c in claims),
            doubts,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values that `of` reads."""
        return {
            "features": list(self.features), "sections": [asdict(s) for s in self.sections], "doubts": self.doubts,
            "claims": [{"name": c.name, "says": str(c.rule), "supports": c.supports, "section": c.section} for c in self.claims],
        }  # fmt: skip

    def __post_init__(self) -> None:
        sections = [s.name for s in self.sections]
        for what, names in (("features", self.features), ("sections", sections), ("claims", [c.name for c in self.claims])):
            if not names or len(set(names)) < len(names):
                raise ConfigError(f"the thesis has the {what} {list(names)}; expected at least one, each once")
        for name in (*(c.section for c in self.claims), self.doubts):
            if name not in sections:
                raise ConfigError(f"the thesis has no section {name!r} among {sections}.{did_you_mean(name, sections)}")
        for name in [f for c in self.claims for f in c.rule.inputs] + [f for s in self.sections for f in s.about]:
            if name not in self.features:
                raise ConfigError(f"the thesis reads no feature {name!r} among {list(self.features)}.{did_you_mean(name, self.features)}")

    def true_claims(self, features: np.ndarray) -> np.ndarray:
        """(N,C) bool: what is true of the features (N,F); False where it cannot be known."""
        columns = {name: features[:, k] for k, name in enumerate(self.features)}
        return np.stack([c.rule.holds(columns.__getitem__) for c in self.claims], axis=1) & self.known_claims(np.isfinite(features))

    def known_claims(self, observed: np.ndarray) -> np.ndarray:
        """(N,C) bool: every input of the claim is there, given which features are observed (N,F)."""
        return np.stack([observed[:, self._at(c.rule.inputs)].all(axis=1) for c in self.claims], axis=1)

    def open_sections(self, observed: np.ndarray) -> np.ndarray:
        """(N,S) bool: there is something that the section can tell of."""
        always = np.ones(len(observed), bool)
        return np.stack([observed[:, self._at(s.about)].any(axis=1) if s.about else always for s in self.sections], axis=1)

    def teacher_sections(self, features: np.ndarray) -> np.ndarray:
        """(N,S) bool: those with something to tell, and `doubts` where the true claims do not speak for both sides.

        It follows from the features alone, so that structure, claims and decision may be drawn apart and still fit together.
        """
        true, written = self.true_claims(features), self.open_sections(np.isfinite(features))
        both = np.stack([(true & (self._supports == side)).any(axis=1) for side in (-1, 1)]).all(axis=0)
        written[:, self._doubts] = ~both
        return written

    def faults(
        self, sections: np.ndarray, claims: np.ndarray, decision: np.ndarray, known: np.ndarray, open_: np.ndarray
    ) -> np.ndarray:  # fmt: skip
        """(N, len(FAULTS)) bool: which rules are broken.

        Parameters
        ----------
        sections, claims : (N,S) and (N,C) bool, what is written and claimed.
        decision : (N,) int, of `DECISIONS`.
        known, open_ : (N,C) and (N,S) bool, `known_claims` and `open_sections` of the same examples.
        """
        told = claims.astype(np.float32) @ self._told_in > 0
        side = SIGNS[decision][:, None]
        backed = (claims & (self._supports == side)).any(axis=1)
        return np.stack([
            ~sections[:, self._required].all(axis=1),
            (sections & ~open_).any(axis=1),
            (told & ~sections).any(axis=1),
            (claims & ~known).any(axis=1),
            (side[:, 0] != 0) & ~backed & ~sections[:, self._doubts],
        ], axis=1)  # fmt: skip

    def _at(self, names: Sequence[str]) -> list[int]:
        return [self.features.index(name) for name in names]

    @cached_property
    def _required(self) -> np.ndarray:
        return np.flatnonzero([s.required for s in self.sections])

    @cached_property
    def _doubts(self) -> int:
        return [s.name for s in self.sections].index(self.doubts)

    @cached_property
    def _supports(self) -> np.ndarray:
        """(C,) the sign that each claim speaks for; 2 where it speaks for none, which is no decision's sign."""
        return np.array([c.supports or 2 for c in self.claims])

    @cached_property
    def _told_in(self) -> np.ndarray:
        """(C,S) float32 one-hot."""
        return np.array([[c.section == s.name for s in self.sections] for c in self.claims], np.float32)


class Thesis(BaseModel):
    """One thesis on one symbol. Validated against a form: `Thesis.of`, or `model_validate(..., context=form)`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: Literal["strong_sell", "sell", "hold", "buy", "strong_buy"]
    p_up: Annotated[float, Field(gt=0, lt=1)]
    sections: tuple[str, ...]
    claims: tuple[str, ...]
    seen: dict[str, FiniteFloat]  # the features that were there, unscaled

    @classmethod
    def of(cls, form: ThesisForm, **fields: Any) -> Thesis:
        """A valid thesis; raises `SchemaError`, in one line, where it would not be one."""
        try:
            return cls.model_validate(fields, context=form)
        except ValidationError as error:
            said = "; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())
            raise SchemaError(f"not a valid thesis: {said}") from None

    @model_validator(mode="after")
    def _keeps_to_the_form(self, info: ValidationInfo) -> Thesis:
        form = info.context
        if not isinstance(form, ThesisForm):
            raise TypeError(f"a thesis is validated against a ThesisForm; the context is {form!r}")
        sections, claims = [s.name for s in form.sections], [c.name for c in form.claims]
        for said, allowed in ((self.sections, sections), (self.claims, claims), (self.seen, form.features)):
            strange = [name for name in said if name not in allowed]
            if strange or len(set(said)) < len(said):
                raise ValueError(f"it names {list(said)}; expected some of {list(allowed)}, each once")
        observed = np.array([[name in self.seen for name in form.features]])
        found = form.faults(
            np.array([[s in self.sections for s in sections]]), np.array([[c in self.claims for c in claims]]),
            np.array([DECISIONS.index(self.decision)]), form.known_claims(observed), form.open_sections(observed),
        )  # fmt: skip
        if found.any():
            raise ValueError("; ".join(what for what, broken in zip(FAULTS, found[0], strict=True) if broken))
        return self

    def evidence(self, form: ThesisForm) -> tuple[Claim, ...]:
        """Each claim as the desk checks it: the feature, its value as seen, and what is made of it; one for every feature it reads."""
        made = [c for c in form.claims if c.name in self.claims]
        return tuple(Claim(feature, self.seen[feature], f"{c.name}: {c.rule}") for c in made for feature in c.rule.inputs)

    def narrative(self, form: ThesisForm) -> str:
        """The thesis as text, a line for each section."""
        lines = []
        for section in (s for s in form.sections if s.name in self.sections):
            told = [f"{c.name} ({c.rule})" for c in form.claims if c.section == section.name and c.name in self.claims]
            facts = [f"{name} {self.seen[name]:.4g}" for name in section.about if name in self.seen]
            lines.append(f"{section.name}: {', '.join(facts + told) or self._otherwise(section.name, form)}.")
        return "\n".join(lines)

    def _otherwise(self, section: str, form: ThesisForm) -> str:
        """What a section says that has neither facts nor claims of its own."""
        side = SIGNS[DECISIONS.index(self.decision)]
        if section == form.doubts:
            against = [c.name for c in form.claims if c.name in self.claims and c.supports == -side != 0]
            backed = any(c.supports == side for c in form.claims if c.name in self.claims)
            return ("" if backed or side == 0 else f"no claim supports the decision to {self.decision}; ") + (
                f"against it: {', '.join(against)}" if against else "no claim speaks against it"
            )
        return f"{self.decision}, P(up) {self.p_up:.2f}" if section == form.sections[0].name else "none of note"
