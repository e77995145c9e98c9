"""Bradley-Terry reward model over context and opinion: whose word deserves weight, here and now.

P(i preferred to j) = sigmoid(r(context, i) - r(context, j)) (Bradley and Terry 1952; Christiano et al. 2017, eq. 1), where a
pair counts by the margin of its scores: of two, the one with the higher expected score has the higher reward. The reward sees
the market's state as well as who speaks, so one author may be worth much in a trend and nothing in a chop. The climatological
forecast is a rival whose reward is 0 by definition: a reward above 0 is an opinion better than it.

An ensemble says how sure it is of a reward: each member learns from dates drawn anew, and where they differ, little is
known (the bootstrap of Breiman 1996; over dates, because what happens on one date is one draw).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from rlaif_ray.core import OpinionTable, content_hash
from rlaif_ray.errors import CheckpointError, DataError, NotFittedError
from rlaif_ray.feedback.preferences import CLIMATOLOGY, HEADS, PairTable
from rlaif_ray.feedback.reward_network import SIZES, Questions, Scorer, Weights, descend, draw
from rlaif_ray.feedback.reward_questions import OUTCOME, Asked, count_questions, drawn_dates, member_seed, some_questions, stance, together

SEES = ("context", "direction", "stance", "author", "text")
_CHUNK = 1 << 14  # opinions at once: what they need stays in the processor's cache
PASSES = 3  # over what is new and as much of what is old, when a model goes on learning


@dataclass(frozen=True)
class Settings:
    """What a reward model is built from; stored beside its weights."""

    authors: tuple[str, ...]
    context: tuple[str, ...]
    traits: tuple[str, ...] = ()  # of the opinions' texts, where they are seen
    size: str = "tiny"  # one of `SIZES`
    members: int = 5
    sees: tuple[str, ...] = ("context", "stance", "author")  # some of `SEES`; direction is the side of p_up alone
    heads: tuple[float, ...] = (1.0, 0.0, 0.0)  # weights in the reward, in the order of `HEADS`; a head of weight 0 is not made
    epochs: int = 30
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.0  # share of the labels that are taken to be wrong
    temperature: float = 0.25
    confidence: float = 1.0  # standard deviations of the ensemble between its mean and its lower bound
    bar: float | None = None  # that an opinion's lower bound must clear to be heard
    batch: int = 128  # questions
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Rewards:
    """What an ensemble makes of opinions, each (...,K) float64; NaN where nobody spoke.

    Pairs of two voices say how rewards differ, not where they lie. So there are two lower bounds, each with the spread of
    what it is used for: `lower`, to choose among those who spoke, that of the members' rewards less their mean over who
    spoke; `sure`, to be held against the bar, that of the outcome head alone, unweighted, in log-odds: only there is the
    climatological forecast a rival and the zero its own. NaN without that head.
    """

    mean: np.ndarray
    lower: np.ndarray
    sure: np.ndarray


class RewardModel:
    """Small networks r(context, opinion) -> reward, fitted on judged pairs; the manager's weights are a softmax of its lower bound."""

    kind = "reward_model"

    def __init__(self, settings: Settings) -> None:
        unknown = [s for s in settings.sees if s not in SEES]
        if unknown or not settings.sees:
            raise DataError(f"a reward model sees {settings.sees}; expected some of {', '.join(SEES)}")
        if len(settings.heads) != len(HEADS) or not sum(settings.heads) > 0 or min(settings.heads) < 0:
            raise DataError(f"weights of the heads are {settings.heads}; expected one for each of {', '.join(HEADS)}, one at least above 0")
        if settings.bar is not None and not settings.heads[OUTCOME] > 0:
            raise DataError(
                f"the bar is {settings.bar:g} and the weight of the outcome head 0, which alone is held against it; "
                "unset feedback.bar, or turn feedback.heads.outcome up"
            )
        if settings.size not in SIZES:
            raise DataError(f"the size {settings.size!r} of a reward model is none of {', '.join(SIZES)}")
        self.settings = settings
        self.n_pairs = 0
        self.anchored = False  # pairs against the climatological forecast were among those learnt from
        self._state: dict[str, np.ndarray] | None = None
        self._scale: dict[str, np.ndarray] = {}

    @property
    def authors(self) -> tuple[str, ...]:
        return self.settings.authors

    @property
    def heads(self) -> tuple[int, ...]:
        """Indices into `HEADS` of those that have a weight."""
        return tuple(h for h, weight in enumerate(self.settings.heads) if weight > 0)

    @property
    def state_hash(self) -> str:
        """Of all fitted numbers: equal on refitting with the same pairs."""
        return content_hash(self._numbers())

    def fit(self, context: np.ndarray, opinions: OpinionTable, pairs: PairTable, only: Sequence[int] | None = None) -> RewardModel:
        """Learn from `pairs` and nothing else.

        Parameters
        ----------
        context : (T,A,C); only entries at which a pair stands are read.
        opinions : that the pairs index.
        only : these of the `members` alone, for a worker who fits some; `joined` puts them together. None: all.

        Standardisation is fitted on the opinions that are in a pair.
        """
        members = list(range(self.settings.members) if only is None else only)
        # A product of one matrix takes another path of the library than one of several, and other last bits come out.
        stacked = members * 2 if len(members) == 1 < self.settings.members else members
        asked = Asked.of(self._anchor_checked(pairs), opinions, self.settings.traits)
        self._scale = asked.scale(context, self.settings.sees)
        seen = self._questions(asked, context, stacked)
        drawn = draw(seen.x.shape[-1], self.settings.size, len(self.heads), [member_seed(self.settings.seed, m) for m in stacked])
        self._learn(drawn, seen, self.settings.epochs)
        self._state = {name: value[: len(members)] for name, value in self._fitted().items()}
        self.n_pairs = len(pairs)
        return self

    @classmethod
    def joined(cls, parts: Sequence[RewardModel]) -> RewardModel:
        """One model of the members that several fitted on the same pairs, in the order of `parts`."""
        first = parts[0]
        if len({content_hash([p.settings, p._scale, p.n_pairs, p.anchored]) for p in parts}) > 1:
            raise DataError("members from different settings or pairs make no ensemble; expected parts of one fit")
        whole = cls(first.settings)
        whole._state = {name: np.concatenate([p._fitted()[name] for p in parts]) for name in first._fitted()}
        whole._scale, whole.n_pairs, whole.anchored = first._scale, first.n_pairs, first.anchored
        return whole

    def update(self, context: np.ndarray, opinions: OpinionTable, new: PairTable, old: PairTable) -> RewardModel:
        """A model that goes on from these weights with a few passes over `new` pairs and as many questions of the `old` ones.

        Without the old ones it would forget them. The scale of its inputs stays as it was fitted.
        """
        rng = np.random.default_rng([self.settings.seed, self.n_pairs])
        both = together(new, some_questions(old, count_questions(new), rng))
        model = RewardModel(self.settings)
        model._scale, model.anchored = self._scale, self.anchored
        asked = Asked.of(model._anchor_checked(both), opinions, self.settings.traits)
        seen = model._questions(asked, context, range(self.settings.members))
        model._learn({name: torch.from_numpy(value) for name, value in self._fitted().items()}, seen, PASSES)
        model.n_pairs = self.n_pairs + len(new)
        return model

    def by_member(self, context: np.ndarray, p_up: np.ndarray, traits: np.ndarray | None = None) -> np.ndarray:
        """(M,...,K,H) float64 rewards, member by member and head by head; see `rewards`."""
        k = p_up.shape[-1]
        texts = None if traits is None else traits.reshape(-1, k, traits.shape[-1])
        found = self._scored(self._scorer(), context.reshape(-1, context.shape[-1]), p_up.reshape(-1, k), texts)
        return found.reshape(len(found), *p_up.shape, -1)

    def rewards(self, context: np.ndarray, p_up: np.ndarray, traits: np.ndarray | None = None) -> Rewards:
        """Of each voice's opinion p_up (...,K) in context (...,C); `traits` (...,K,X) as named in the settings, where texts are seen."""
        k = p_up.shape[-1]
        contexts, said = context.reshape(-1, context.shape[-1]), p_up.reshape(-1, k)
        texts = None if traits is None else traits.reshape(-1, k, traits.shape[-1])
        scorer, out = self._scorer(), np.empty((3, *said.shape))
        step = max(1, _CHUNK // k)
        for at in (slice(start, start + step) for start in range(0, len(said), step)):
            self._reduce(self._scored(scorer, contexts[at], said[at], None if texts is None else texts[at]), said[at], out[:, at])
        mean, lower, sure = out.reshape(3, *p_up.shape)
        return Rewards(mean, lower, sure)

    def _scorer(self) -> Scorer:
        return Scorer(self._fitted(), SIZES[self.settings.size].rows)

    def _scored(self, scorer: Scorer, context: np.ndarray, p_up: np.ndarray, traits: np.ndarray | None) -> np.ndarray:
        """(M,Q,K,H) float64 rewards of p_up (Q,K); NaN where nobody spoke."""
        x = self._inputs(context, p_up, traits).reshape(p_up.size, -1)
        spoke = np.isfinite(p_up).reshape(-1)
        if spoke.all():
            out = scorer(x).astype(np.float64)
        else:
            out = np.full((scorer.members, p_up.size, scorer.heads), np.nan)
            out[:, spoke] = scorer(x[spoke])
        return out.reshape(scorer.members, *p_up.shape, scorer.heads)

    def _reduce(self, by_head: np.ndarray, p_up: np.ndarray, out: np.ndarray) -> None:
        """Mean, `lower` and `sure` (3,Q,K) of the members' rewards (M,Q,K,H), into `out`."""
        each = _in_order([self.settings.heads[h] * by_head[..., i] for i, h in enumerate(self.heads)])  # (M,Q,K)
        mean = _in_order(each) / len(each)
        apart = each - mean
        spoke = np.isfinite(p_up)
        heard = apart if spoke.all() else np.where(spoke, apart, 0.0)
        shift = _in_order([heard[..., k] for k in range(p_up.shape[-1])]) / np.maximum(spoke.sum(axis=-1), 1)
        # A member whose rewards all lie higher tells nobody from nobody: its shift is no doubt about whom to choose.
        out[0], out[1] = mean, mean - self.settings.confidence * _spread(apart - shift[..., None])
        out[2] = self._sure(by_head[..., self.heads.index(OUTCOME)]) if OUTCOME in self.heads else np.nan

    def _sure(self, outcome: np.ndarray) -> np.ndarray:
        """(Q,K) lower bound of the members' log-odds (M,Q,K) of being better than climatology."""
        mean = _in_order(outcome) / len(outcome)
        return mean - self.settings.confidence * _spread(outcome - mean)

    def weights(self, context: np.ndarray, p_up: np.ndarray, traits: np.ndarray | None = None) -> np.ndarray:
        """(...,K) softmax over who spoke of lower bound / temperature: sums to 1, or is 0 where nobody spoke or cleared the bar."""
        rewards = self.rewards(context, p_up, traits)
        heard = np.where(self._cleared(rewards), rewards.lower, np.nan)
        return softmax(heard / self.settings.temperature)

    def best_of(self, context: np.ndarray, p_up: np.ndarray, traits: np.ndarray | None = None) -> np.ndarray:
        """(...) index of the voice with the best lower bound (best-of-n); -1 where nobody spoke or cleared the bar."""
        rewards = self.rewards(context, p_up, traits)
        heard = np.where(self._cleared(rewards), rewards.lower, -np.inf)
        return np.where(np.isfinite(heard).any(axis=-1), heard.argmax(axis=-1), -1)

    def _cleared(self, rewards: Rewards) -> np.ndarray:
        """(...,K) who spoke, and is better than climatology by the bar, as far as the ensemble is sure of it."""
        spoke = np.isfinite(rewards.mean)
        if self.settings.bar is None:
            return spoke
        with np.errstate(invalid="ignore"):
            return spoke & (rewards.sure >= self.settings.bar)

    def save(self, folder: str | Path) -> Path:
        """Write reward_model.safetensors and reward_model.json into `folder`."""
        numbers = self._numbers()
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(numbers, folder / "reward_model.safetensors")
        about = {
            "kind": self.kind, "n_pairs": self.n_pairs, "anchored": self.anchored, "state_hash": self.state_hash,
            "settings": asdict(self.settings),
        }  # fmt: skip
        (folder / "reward_model.json").write_text(json.dumps(about, indent=1, sort_keys=True))
        return folder / "reward_model.json"

    @classmethod
    def load(cls, folder: str | Path) -> RewardModel:
        """The inverse of `save`. Raises `CheckpointError` where files are missing or do not match each other."""
        path = Path(folder) / "reward_model.json"
        weights = path.with_suffix(".safetensors")
        if not path.is_file() or not weights.is_file():
            raise CheckpointError(f"no whole reward model in {folder}; expected {path.name} and {weights.name}: was its run cut short?")
        about: dict[str, Any] = json.loads(path.read_text())
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in about["settings"].items()}
        model = cls(Settings(**settings))
        model._set_numbers(load_file(weights))
        model.n_pairs, model.anchored = about["n_pairs"], about["anchored"]
        if model.state_hash != about["state_hash"]:
            raise CheckpointError(f"{weights} does not hash to what {path.name} says; the two are from different runs")
        return model

    # --- what is fitted ---

    def _fitted(self) -> dict[str, np.ndarray]:
        if self._state is None:
            raise NotFittedError("the reward model has seen no pairs; call fit, or use EqualWeights where there are none")
        return self._state

    def _numbers(self) -> dict[str, np.ndarray]:
        return {**{f"network.{k}": v for k, v in self._fitted().items()}, **{f"scale.{k}": v for k, v in self._scale.items()}}

    def _set_numbers(self, numbers: dict[str, np.ndarray]) -> None:
        parts = {kind: {k.removeprefix(kind): v for k, v in numbers.items() if k.startswith(kind)} for kind in ("network.", "scale.")}
        self._state, self._scale = parts["network."], parts["scale."]

    def _anchor_checked(self, pairs: PairTable) -> PairTable:
        if not len(pairs):
            raise DataError("a reward model was given no pairs to learn from; expected some, or EqualWeights in its place")
        self.anchored = self.anchored or bool((np.minimum(pairs.chosen, pairs.rejected) == CLIMATOLOGY).any())
        if self.settings.bar is not None and not self.anchored:
            raise DataError("a bar is set, but no pair is against the climatological forecast: rewards have no zero; unset feedback.bar")
        return pairs

    def _learn(self, weights: Weights, seen: Questions, epochs: int) -> None:
        s = self.settings
        learnt = descend(
            weights, seen, epochs=epochs, batch=s.batch, learning_rate=s.learning_rate, weight_decay=s.weight_decay,
            seed=member_seed(s.seed, -1),
        )  # fmt: skip
        self._state = {name: value.numpy().copy() for name, value in learnt.items()}

    # --- what networks read ---

    def _questions(self, asked: Asked, context: np.ndarray, members: Sequence[int]) -> Questions:
        x = self._inputs(context[asked.date, asked.asset], asked.p_up, asked.traits)
        sides, total, against = asked.labels({h: self.settings.heads[h] for h in self.heads}, self.settings.label_smoothing)
        alone = self.settings.members == 1  # a single model learns from every date once
        counts = np.stack([np.ones(len(x)) if alone else drawn_dates(self.settings.seed, m, asked.cluster) for m in members])
        return Questions(*(torch.from_numpy(a.astype(np.float32, copy=False)) for a in (x, sides, total, against, counts)))

    def _inputs(self, context: np.ndarray, p_up: np.ndarray, traits: np.ndarray | None) -> np.ndarray:
        """(Q,K,D) float32 inputs of opinions p_up (Q,K) in contexts (Q,C); who did not speak says nothing in particular."""
        s, k = self.settings, len(self.authors)
        if "text" in s.sees and (traits is None or traits.shape != (*p_up.shape, len(s.traits))):
            seen = None if traits is None else traits.shape
            raise DataError(f"the reward model reads {s.traits} of texts; expected them (...,K,X), seen {seen}")
        widths = {"context": len(s.context), "direction": 1, "stance": 2, "author": k, "text": len(s.traits)}
        blocks = [b for b in SEES if b in s.sees]
        first = dict(zip(blocks, np.cumsum([0] + [widths[b] for b in blocks]), strict=False))
        of_question = np.zeros((len(p_up), sum(widths[b] for b in blocks)), np.float32)
        if "context" in first:
            of_question[:, : len(s.context)] = self._standard("context", context)
        x = np.repeat(of_question, k, axis=0).reshape(*p_up.shape, -1)  # a question's context is that of all its voices
        if "direction" in first:
            x[..., first["direction"]] = np.nan_to_num(np.sign(p_up - 0.5))
        if "stance" in first:
            for i, column in enumerate(stance(p_up)):
                x[..., first["stance"] + i] = self._standard("stance", column, i)
        if "author" in first:
            for i in range(k):
                x[:, i, first["author"] + i] = 1.0
        if "text" in first and traits is not None:
            x[..., first["text"] :] = self._standard("text", traits)
        return x

    def _standard(self, block: str, x: np.ndarray, column: int | None = None) -> np.ndarray:
        """In [-5, 5]; what is not known stands at its mean."""
        mean, std = self._scale[f"{block}.mean"], self._scale[f"{block}.std"]
        if column is not None:
            mean, std = mean[column], std[column]
        z = (x - mean) / std
        z[~np.isfinite(z)] = 0.0
        return np.clip(z, -5.0, 5.0, out=z)


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis, leaving NaN entries out with weight 0."""
    there = np.isfinite(x)
    top = np.where(there, x, -np.inf).max(axis=-1, keepdims=True)
    exp = np.where(there, np.exp(np.where(there, x, 0.0) - np.where(np.isfinite(top), top, 0.0)), 0.0)
    total = exp.sum(axis=-1, keepdims=True)
    return exp / np.where(total > 0, total, 1.0)


def _in_order(parts: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Their sum, one after the other, so that one opinion and a table of them add up alike, bit for bit."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _spread(apart: np.ndarray) -> np.ndarray:
    """Standard deviation of members that lie so far (M,...) from their mean; a single one is taken at its word."""
    return np.sqrt(_in_order(apart * apart) / max(len(apart) - 1, 1))
