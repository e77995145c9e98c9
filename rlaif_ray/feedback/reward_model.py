"""Bradley-Terry reward model over context and opinion: whose word deserves weight, here and now.

P(i preferred to j) = sigmoid(r(context, i) - r(context, j)) (Bradley and Terry 1952; Christiano et al. 2017, eq. 1).
The reward sees the market's state as well as who speaks, so one author may be worth much in a trend and nothing in a
chop. Without enough judged pairs there is no model, and `EqualWeights` says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from rlaif_ray.core import MarketView, content_hash
from rlaif_ray.errors import CheckpointError, DataError, NotFittedError
from rlaif_ray.feedback.context import context_features
from rlaif_ray.feedback.preferences import PairTable

OPINION_COLUMNS = 2  # logit of p_up and its absolute value; an author's one-hot follows unless it is masked
_ROWS = 1024  # networks run in padded batches of one size, so that one opinion and a million are scored alike


@dataclass(frozen=True)
class Settings:
    """What a reward model is built from; stored beside its weights."""

    authors: tuple[str, ...]
    context: tuple[str, ...]
    hidden: int = 32
    epochs: int = 30
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    temperature: float = 0.25
    batch: int = 1024
    mask_author: bool = False
    seed: int = 0


class RewardModel:
    """A small network r(context, opinion) -> reward, fitted on judged pairs; the manager's weights are a softmax of it."""

    kind = "reward_model"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.n_pairs = 0
        self._state: dict[str, np.ndarray] | None = None

    @property
    def authors(self) -> tuple[str, ...]:
        return self.settings.authors

    @property
    def state_hash(self) -> str:
        """Of all fitted numbers: equal on refitting with the same pairs."""
        return content_hash(self._fitted())

    def fit(self, context: np.ndarray, p_up: np.ndarray, pairs: PairTable) -> RewardModel:
        """Learn from `pairs` and nothing else.

        Parameters
        ----------
        context : (T,A,C); only entries at which a pair stands are read.
        p_up : (T,A,K) as in the `OpinionTable` that the pairs index.

        Loss -log sigmoid(r_chosen - r_rejected), AdamW. Standardisation is fitted on the pairs, one entry a pair.
        """
        here = context[pairs.date, pairs.asset]
        sides = [self._raw(here, p_up[pairs.date, pairs.asset, k], k) for k in (pairs.chosen, pairs.rejected)]
        mean, std = _scale(np.concatenate(sides), len(self.settings.context) + OPINION_COLUMNS)
        chosen, rejected = (torch.from_numpy(_standardise(s, mean, std)) for s in sides)
        generator = torch.Generator().manual_seed(self.settings.seed)
        net = _network(chosen.shape[1], self.settings.hidden, generator)
        self._descend(net, chosen, rejected, generator)
        weights = {name: value.detach().numpy().copy() for name, value in net.state_dict().items()}
        self._state = {"mean": mean, "std": std, **weights}
        self.n_pairs = len(pairs)
        return self

    def _descend(self, net: torch.nn.Module, chosen: torch.Tensor, rejected: torch.Tensor, generator: torch.Generator) -> None:
        s = self.settings
        optimiser = torch.optim.AdamW(net.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay)
        for _ in range(s.epochs):
            for index in torch.randperm(len(chosen), generator=generator).split(s.batch):
                gap = net(chosen[index]) - net(rejected[index])
                loss = torch.nn.functional.softplus(-gap).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

    def rewards(self, context: np.ndarray, p_up: np.ndarray) -> np.ndarray:
        """(...,K) float64 reward of each author's opinion p_up (...,K) in context (...,C); NaN for who abstained."""
        state = self._fitted()
        spoke = np.isfinite(p_up)
        here = np.broadcast_to(context[..., None, :], (*p_up.shape, context.shape[-1]))[spoke]
        rows = self._raw(here, p_up[spoke], np.nonzero(spoke)[-1])
        x = _standardise(rows, state["mean"], state["std"])
        padded = np.zeros((-(-max(len(x), 1) // _ROWS) * _ROWS, x.shape[1]), np.float32)
        padded[: len(x)] = x
        net = _network(x.shape[1], self.settings.hidden, torch.Generator())
        net.load_state_dict({n: torch.from_numpy(v) for n, v in state.items() if n not in ("mean", "std")})
        with torch.inference_mode():
            scored = torch.cat([net(torch.from_numpy(padded[i : i + _ROWS])) for i in range(0, len(padded), _ROWS)])
        out = np.full(p_up.shape, np.nan)
        out[spoke] = scored.numpy()[: len(x), 0]
        return out

    def weights(self, context: np.ndarray, p_up: np.ndarray) -> np.ndarray:
        """(...,K) softmax over the authors who spoke, of reward / temperature; rows sum to 1, or are 0 where all abstained."""
        return _softmax(self.rewards(context, p_up) / self.settings.temperature)

    def save(self, folder: str | Path) -> Path:
        """Write reward_model.safetensors and reward_model.json into `folder`."""
        state = self._fitted()
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / "reward_model.safetensors")
        about = {"kind": self.kind, "n_pairs": self.n_pairs, "state_hash": self.state_hash, "settings": asdict(self.settings)}
        (folder / "reward_model.json").write_text(json.dumps(about, indent=1, sort_keys=True))
        return folder / "reward_model.json"

    def _fitted(self) -> dict[str, np.ndarray]:
        if self._state is None:
            raise NotFittedError("the reward model has seen no pairs; call fit, or use EqualWeights where there are none")
        return self._state

    def _raw(self, context: np.ndarray, p_up: np.ndarray, author: np.ndarray) -> np.ndarray:
        """(N,D) unscaled inputs: context, logit, |logit|, one-hot of the author."""
        logit = (np.log(p_up) - np.log1p(-p_up))[:, None]
        hot = np.zeros((len(p_up), 0)) if self.settings.mask_author else np.eye(len(self.authors))[author]
        return np.concatenate([context, logit, np.abs(logit), hot], axis=1)


@dataclass(frozen=True)
class EqualWeights:
    """No model: every author who spoke weighs the same. Holds why, so that nobody takes it for a learned judge."""

    authors: tuple[str, ...]
    n_pairs: int
    min_pairs: int
    kind: str = "equal_weights"

    @property
    def reason(self) -> str:
        return f"{self.n_pairs} judged pairs had closed; at least {self.min_pairs} are needed for a reward model"

    def weights(self, context: np.ndarray, p_up: np.ndarray) -> np.ndarray:
        """(...,K) 1 / number of authors who spoke; 0 for who abstained."""
        return _softmax(np.where(np.isfinite(p_up), 0.0, np.nan))

    def save(self, folder: str | Path) -> Path:
        """Write reward_model.json into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "reward_model.json").write_text(json.dumps(asdict(self), indent=1, sort_keys=True))
        return folder / "reward_model.json"


Judge = RewardModel | EqualWeights


def fit_judge(context: np.ndarray, p_up: np.ndarray, pairs: PairTable, settings: Settings, *, min_pairs: int) -> Judge:
    """A fitted reward model, or `EqualWeights` where fewer than `min_pairs` pairs are there to learn from."""
    if len(pairs) < min_pairs:
        return EqualWeights(settings.authors, len(pairs), min_pairs)
    return RewardModel(settings).fit(context, p_up, pairs)


def load_judge(folder: str | Path) -> Judge:
    """The inverse of `save`. Raises `CheckpointError` where files are missing or do not match each other."""
    path = Path(folder) / "reward_model.json"
    if not path.is_file():
        raise CheckpointError(f"no reward model in {folder}; expected reward_model.json")
    about: dict[str, Any] = json.loads(path.read_text())
    if about["kind"] == EqualWeights.kind:
        return EqualWeights(tuple(about["authors"]), about["n_pairs"], about["min_pairs"])
    settings = about["settings"]
    model = RewardModel(Settings(**{**settings, "authors": tuple(settings["authors"]), "context": tuple(settings["context"])}))
    weights = path.with_suffix(".safetensors")
    if not weights.is_file():
        raise CheckpointError(f"{path} has no {weights.name} beside it; the run that wrote it was cut short")
    model._state = load_file(weights)
    model.n_pairs = about["n_pairs"]
    if model.state_hash != about["state_hash"]:
        raise CheckpointError(f"{weights} does not hash to what {path.name} says; the two are from different runs")
    return model


def weigh_with(judge: Judge) -> Callable[[MarketView, np.datetime64, tuple[str, ...], np.ndarray], np.ndarray]:
    """How a manager asks the judge: (view, moment of the opinions, authors (K,), p_up (A,K)) -> weights (A,K).

    The context is that of the moment of the opinions, as in training. Raises `DataError` for an author that it never judged.
    """

    def weigh(view: MarketView, opined_at: np.datetime64, authors: tuple[str, ...], p_up: np.ndarray) -> np.ndarray:
        strangers = [a for a in authors if a not in judge.authors]
        if strangers:
            raise DataError(f"the judge knows {', '.join(judge.authors)}; it cannot weigh {', '.join(strangers)}")
        columns = [judge.authors.index(a) for a in authors]
        known = np.full((len(p_up), len(judge.authors)), np.nan)
        known[:, columns] = p_up
        history = view.history()
        return judge.weights(context_features(history, [history.row(opined_at)])[0], known)[:, columns]

    return weigh


def _network(inputs: int, hidden: int, generator: torch.Generator) -> torch.nn.Sequential:
    """One hidden ReLU layer. Drawn from `generator`, never from the global state; the head starts at zero: equal weights."""
    first, head = (torch.nn.utils.skip_init(torch.nn.Linear, *shape) for shape in ((inputs, hidden), (hidden, 1)))
    assert isinstance(first, torch.nn.Linear) and isinstance(head, torch.nn.Linear)
    bound = (3.0 / inputs) ** 0.5
    with torch.no_grad():
        first.weight.uniform_(-bound, bound, generator=generator)
        for rest in (first.bias, head.weight, head.bias):
            rest.zero_()
    return torch.nn.Sequential(first, torch.nn.ReLU(), head)


def _scale(x: np.ndarray, scaled: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation over finite entries of the first `scaled` columns; one-hots stay as they are."""
    there = np.isfinite(x)
    count = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, x, 0.0).sum(axis=0) / count
    std = np.sqrt(np.where(there, (x - mean) ** 2, 0.0).sum(axis=0) / count)
    mean[scaled:], std[scaled:] = 0.0, 1.0
    return mean, np.where(std > 1e-12, std, 1.0)


def _standardise(x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """float32 in [-5, 5]; a context that is not known stands at its mean."""
    z = np.clip((x - mean) / std, -5.0, 5.0)
    return np.where(np.isfinite(z), z, 0.0).astype(np.float32)


def _softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis, leaving NaN entries out with weight 0."""
    there = np.isfinite(x)
    top = np.where(there, x, -np.inf).max(axis=-1, keepdims=True)
    exp = np.where(there, np.exp(np.where(there, x, 0.0) - np.where(np.isfinite(top), top, 0.0)), 0.0)
    total = exp.sum(axis=-1, keepdims=True)
    return exp / np.where(total > 0, total, 1.0)
