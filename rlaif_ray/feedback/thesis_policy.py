"""The thesis policy: a small network that writes structured theses and decides, after Trading-R1 (Xiao et al. 2025).

One encoder, three heads: which sections are written and which claims are made (independent Bernoullis), and one of five
decisions. The heads are independent given the encoding, so a thesis's log-probability is the sum of theirs. A claim whose
input is missing has probability 0: its log-odds are replaced before anything reads them, so no loss, no gradient, no sample
and no entropy ever depends on them. Axes: N theses, F features, S sections, C claims, D = 5 decisions.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch.nn import functional

from rlaif_ray.core import content_hash
from rlaif_ray.errors import CheckpointError, NotFittedError
from rlaif_ray.feedback.thesis_data import StandardScaler
from rlaif_ray.feedback.thesis_schema import DECISIONS, SIGNS, Thesis, ThesisForm

MANIFEST, WEIGHTS = "thesis.json", "thesis.safetensors"
_NEVER = -1e4  # log-odds of a claim that cannot be made: its probability, loss and entropy are exactly 0 in float32
_ROWS = 256  # networks run in padded batches of one size, so that one thesis and a million are written alike
_EDGE = 1e-6  # probabilities are kept this far from 0 and 1


class Logits(NamedTuple):
    sections: torch.Tensor  # (N,S) log-odds
    claims: torch.Tensor  # (N,C) log-odds, very low where the claim's input is missing
    decision: torch.Tensor  # (N,D)


class Draft(NamedTuple):
    """Theses as a network writes them, before they are validated."""

    sections: np.ndarray  # (N,S) bool
    claims: np.ndarray  # (N,C) bool
    decision: np.ndarray  # (N,) int64


class Sample(NamedTuple):
    draft: Draft
    log_probs: torch.Tensor  # (N,3) of the sections, the claims and the decision
    entropy: torch.Tensor  # (N,) nats, of all heads together


@dataclass(frozen=True)
class Calibration:
    """P(up) = sigmoid(slope x log-odds + bias), after Platt (1999). The slope is never negative: the order stays, or is given up."""

    slope: float = 1.0
    bias: float = 0.0
    rows: int = 0  # that it was fitted on
    reason: str = "not fitted"  # why it changes nothing; empty: it was fitted

    def __call__(self, p_up: np.ndarray) -> np.ndarray:
        """float64, strictly inside (0, 1)."""
        if self.reason:
            return np.clip(p_up, _EDGE, 1 - _EDGE)
        return np.clip(1.0 / (1.0 + np.exp(-(self.slope * log_odds(p_up) + self.bias))), _EDGE, 1 - _EDGE)


class ThesisPolicy(torch.nn.Module):
    """Features -> thesis. Built for a form; `scaler` and weights come from training (`thesis_training`) or `load`."""

    _needs: torch.Tensor  # (F,C) float32, 1 where the claim reads the feature

    def __init__(self, form: ThesisForm, *, hidden: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.form, self.hidden = form, hidden
        self.scaler: StandardScaler | None = None
        self.calibration = Calibration()
        generator = torch.Generator().manual_seed(seed)
        inputs = 2 * len(form.features)
        self.encoder = torch.nn.Sequential(
            _linear(inputs, hidden, generator), torch.nn.ReLU(), _linear(hidden, hidden, generator), torch.nn.ReLU()
        )
        self.structure_head = _linear(hidden, len(form.sections), generator)
        self.claims_head = _linear(hidden, len(form.claims), generator)
        self.decision_head = _linear(hidden, len(DECISIONS), generator)
        needs = form.known_claims(~np.eye(len(form.features), dtype=bool))  # (F,C): the claim can do without the feature
        self.register_buffer("_needs", torch.from_numpy((~needs).astype(np.float32)), persistent=False)

    def forward(self, x: torch.Tensor) -> Logits:
        """From network inputs x (N,2F) float32 as `StandardScaler.inputs` makes them."""
        h = self.encoder(x)
        missing = (1.0 - x[:, len(self.form.features) :]) @ self._needs > 0
        return Logits(self.structure_head(h), self.claims_head(h).masked_fill(missing, _NEVER), self.decision_head(h))

    def sample(self, x: torch.Tensor, generator: torch.Generator) -> Sample:
        """One thesis for each row of x (N,2F), drawn from the heads; gradients flow through `log_probs` and `entropy`."""
        logits = self(x)
        draft = draw(logits, generator)
        return Sample(draft, log_probs(logits, draft), entropy(logits))

    @torch.inference_mode()
    def predict(self, features: np.ndarray) -> tuple[Draft, np.ndarray]:
        """The likeliest thesis of each row, and its calibrated p_up (N,) float64, from unscaled features (N,F), NaN where missing.

        p_up = P(buy) + P(strong_buy) + P(hold) / 2, then `calibration`. One row alone and among others has the same bits.
        Raises `NotFittedError` before training.
        """
        logits = self.logits(features)
        return likeliest(logits), self.calibration(p_up(logits))

    def generate_thesis(self, features: np.ndarray, generator: torch.Generator | None = None) -> Thesis:
        """The thesis on one symbol from its unscaled features (F,): the likeliest, or one drawn by the generator.

        Raises `SchemaError` where it is not valid, which says what is wrong with it, and `NotFittedError` before training.
        """
        with torch.inference_mode():
            logits = self.logits(features[None])
            draft = likeliest(logits) if generator is None else draw(logits, generator)
        return thesis_of(self.form, features, Draft(*(part[0] for part in draft)), float(self.calibration(p_up(logits))[0]))

    def inputs(self, features: np.ndarray) -> torch.Tensor:
        """(N,2F) network inputs of unscaled features (N,F)."""
        return torch.from_numpy(self._fitted().inputs(features))

    def raw_p_up(self, features: np.ndarray) -> np.ndarray:
        """(N,) float64 p_up as the decision head says it, before calibration."""
        with torch.inference_mode():
            return p_up(self.logits(features))

    @property
    def state_hash(self) -> str:
        """Content hash of all that was learnt: weights, scaler, calibration."""
        return content_hash({"state": self._state(), "calibration": self.calibration})

    def save(self, folder: str | Path) -> Path:
        """Weights and scaler as safetensors, everything else as JSON."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self._state(), folder / WEIGHTS)
        about = {
            "form": self.form.to_json(), "hidden": self.hidden, "calibration": asdict(self.calibration), "state_hash": self.state_hash
        }  # fmt: skip
        (folder / MANIFEST).write_text(json.dumps(about, indent=1, sort_keys=True))
        return folder / MANIFEST

    @classmethod
    def load(cls, folder: str | Path) -> ThesisPolicy:
        """The inverse of `save`. Raises `CheckpointError` where files are missing or do not match each other."""
        folder = Path(folder)
        try:
            about = json.loads((folder / MANIFEST).read_text())
            state = load_file(folder / WEIGHTS)
            policy = cls(ThesisForm.of(**about["form"]), hidden=about["hidden"])
            policy.scaler = StandardScaler(state.pop("scaler.mean"), state.pop("scaler.std"))
            policy.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
            policy.calibration = Calibration(**about["calibration"])
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"no thesis policy in {folder}: {error}; expected {MANIFEST} and {WEIGHTS} of one save") from error
        if policy.state_hash != about["state_hash"]:
            raise CheckpointError(f"{folder / WEIGHTS} does not hash to what {MANIFEST} says; the two are from different saves")
        return policy

    def _state(self) -> dict[str, np.ndarray]:
        scaler = self._fitted()
        weights = {name: value.detach().numpy().copy() for name, value in self.state_dict().items()}
        return {**weights, "scaler.mean": scaler.mean, "scaler.std": scaler.std}

    def _fitted(self) -> StandardScaler:
        if self.scaler is None:
            raise NotFittedError("the thesis policy has no scaler yet; train it, or load a folder that save wrote")
        return self.scaler

    def logits(self, features: np.ndarray) -> Logits:
        """Of unscaled features (N,F), in padded batches of one size."""
        x = self.inputs(features)
        padded = functional.pad(x, (0, 0, 0, -len(x) % _ROWS if len(x) else _ROWS))
        parts = [self(part) for part in padded.split(_ROWS)]
        return Logits(*(torch.cat(head)[: len(x)] for head in zip(*parts, strict=True)))


def draw(logits: Logits, generator: torch.Generator) -> Draft:
    """One draft a row, from one block of uniforms: the sections', the claims', then the decision's."""
    s, c = logits.sections.shape[1], logits.claims.shape[1]
    with torch.no_grad():
        uniform = torch.rand((len(logits.decision), s + c + 1), generator=generator)
        stated = uniform[:, : s + c] < torch.sigmoid(torch.cat([logits.sections, logits.claims], dim=1))
        below = torch.softmax(logits.decision, dim=1).cumsum(dim=1)[:, :-1]  # the last is 1: rounding must not name a sixth
        decision = (uniform[:, s + c :] >= below).sum(dim=1)
    return Draft(stated[:, :s].numpy(), stated[:, s:].numpy(), decision.numpy())


def likeliest(logits: Logits) -> Draft:
    """The most probable draft of each row."""
    return Draft((logits.sections > 0).numpy(), (logits.claims > 0).numpy(), logits.decision.argmax(dim=1).numpy())


def log_probs(logits: Logits, draft: Draft) -> torch.Tensor:
    """(N,3) log-probability of the drafts: sections, claims, decision."""
    decision = torch.from_numpy(draft.decision)[:, None]
    return torch.stack([
        -functional.softplus(torch.where(torch.from_numpy(draft.sections), -logits.sections, logits.sections)).sum(dim=1),
        -functional.softplus(torch.where(torch.from_numpy(draft.claims), -logits.claims, logits.claims)).sum(dim=1),
        torch.log_softmax(logits.decision, dim=1).gather(1, decision)[:, 0],
    ], dim=1)  # fmt: skip


def log_odds_between(logits: Logits, first: Draft, second: Draft) -> torch.Tensor:
    """(N,) log p(first) - log p(second), all heads together. What normalises both is the same and falls out."""
    apart = [torch.from_numpy(np.subtract(a, b, dtype=np.float32)) for a, b in zip(first[:2], second[:2], strict=True)]
    chosen = logits.decision.gather(1, torch.from_numpy(np.stack([first.decision, second.decision], axis=1)))
    return (logits.sections * apart[0]).sum(dim=1) + (logits.claims * apart[1]).sum(dim=1) + chosen[:, 0] - chosen[:, 1]


def entropy(logits: Logits) -> torch.Tensor:
    """(N,) nats of all heads together: H(Bernoulli(sigmoid z)) = softplus(z) - z sigmoid(z)."""
    z = torch.cat([logits.sections, logits.claims], dim=1)
    log_p = torch.log_softmax(logits.decision, dim=1)
    return (functional.softplus(z) - z * torch.sigmoid(z)).sum(dim=1) - (log_p.exp() * log_p).sum(dim=1)


def p_up(logits: Logits) -> np.ndarray:
    """(N,) float64 P(buy) + P(strong_buy) + P(hold) / 2, kept off 0 and 1."""
    probability = torch.softmax(logits.decision.detach().double(), dim=1).numpy()
    return np.clip((probability * (0.5 + SIGNS / 2)).sum(axis=1), _EDGE, 1 - _EDGE)  # row by row: a product's bits may hang on N


def thesis_of(form: ThesisForm, features: np.ndarray, draft: Draft, p_up: float) -> Thesis:
    """One validated thesis from one row of a draft and the unscaled features (F,) that it was written from. Raises `SchemaError`."""
    return Thesis.of(
        form, decision=DECISIONS[int(draft.decision)], p_up=p_up,
        sections=tuple(s.name for s, written in zip(form.sections, draft.sections, strict=True) if written),
        claims=tuple(c.name for c, made in zip(form.claims, draft.claims, strict=True) if made),
        seen={name: float(value) for name, value in zip(form.features, features, strict=True) if math.isfinite(value)},
    )  # fmt: skip


def log_odds(p: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), p kept off 0 and 1."""
    p = np.clip(np.asarray(p, np.float64), _EDGE, 1 - _EDGE)
    return np.log(p) - np.log1p(-p)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> torch.nn.Linear:
    """Torch's own start, U(+-1/sqrt(inputs)), drawn from `generator` and never from the global state."""
    layer = torch.nn.utils.skip_init(torch.nn.Linear, inputs, outputs)
    assert isinstance(layer, torch.nn.Linear)
    bound = 1.0 / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer
