"""A Bradley-Terry reward model that reads texts: any encoder of the Hugging Face library, from a folder, with one output.

P(first preferred to second) = sigmoid(r(first) - r(second)) (Bradley and Terry 1952; Stiennon et al. 2020, section 3.4, for
texts). The network is fitted whole, without dropout: with it two networks would read the two texts of a pair.
Nothing is fetched: the weights lie in a folder that `save_pretrained` wrote.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from rlaif_ray.core import content_hash
from rlaif_ray.errors import CheckpointError, ConfigError, DataError, NotFittedError
from rlaif_ray.feedback.opinion_texts import TextPairs

ABOUT = "text_reward.json"
_ROWS = 16  # texts go through the network in batches of one shape, so that one text and a million are scored alike


@dataclass(frozen=True)
class TextSettings:
    """What a text reward model is built from; all but the path is stored beside its weights."""

    path: str  # a folder with config.json, weights and a tokenizer
    length: int = 128  # tokens that are read of a text
    epochs: int = 3
    batch: int = 32  # pairs
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    label_smoothing: float = 0.0  # chance that a pair is labelled the wrong way round
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_smoothing < 0.5:
            raise ConfigError(f"label_smoothing is {self.label_smoothing}; expected at least 0 and below 0.5, where labels say nothing")
        if min(self.length - 1, self.epochs, self.batch) < 1:
            raise ConfigError(f"length, epochs, batch are {self.length}, {self.epochs}, {self.batch}; expected at least 2, 1, 1")


class TextRewardModel:
    """r(text) -> reward, in log-odds, by an encoder with a head of one output; a new head is drawn from the seed.

    Raises `ConfigError` where `settings.path` holds no network and tokenizer, or the network reads fewer tokens than asked for.
    """

    kind = "text_reward_model"

    def __init__(self, settings: TextSettings) -> None:
        self.settings = settings
        self.tokenizer, self.network = _begin(settings)
        self.n_pairs = 0
        self.n_cut = 0  # texts of those pairs, each counted once a pair, whose end was cut off

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    @property
    def state_hash(self) -> str:
        """Of all fitted numbers and the words that they are about: equal on refitting with the same pairs."""
        return content_hash([{n: v.detach().numpy() for n, v in self.network.state_dict().items()}, self.tokenizer.get_vocab()])

    def fit(
        self, pairs: TextPairs, *, wrap: Callable[[nn.Module], nn.Module] | None = None, rank: int = 0, workers: int = 1
    ) -> TextRewardModel:  # fmt: skip
        """Learn from `pairs`; a second call goes on from the first's weights. AdamW, gradients clipped to norm 1.

        Of several `workers`, each is handed its share of the same batches and `wrap` makes the network average gradients, so
        all end with the same weights, and up to rounding with those of one worker. Raises `DataError` without pairs.
        """
        chosen, rejected = self.read(pairs)
        weight = torch.from_numpy(pairs.weight / pairs.weight.mean()).float()
        s = self.settings
        with one_thread():
            network = self.network.eval() if wrap is None else wrap(self.network.eval())
            optimiser = optimiser_of(self.network, s)
            generator = torch.Generator().manual_seed(s.seed)
            for _ in range(s.epochs):
                for index in torch.randperm(len(pairs), generator=generator).split(s.batch):
                    share = index[rank::workers]
                    mine = share if len(share) else index[:1]  # read for nothing: who has no share steps with the rest
                    gap = self._gap(network, [chosen[i] for i in mine], [rejected[i] for i in mine])
                    loss = bradley_terry(gap, weight[mine], s.label_smoothing).sum() * (workers / len(index) if len(share) else 0.0)
                    optimiser.zero_grad()
                    loss.backward()
                    nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
                    optimiser.step()
        return self

    def read(self, pairs: TextPairs) -> tuple[list[list[int]], list[list[int]]]:
        """The tokens of both sides, at most `length` - 1 each; counts pairs and cut texts, which a fit then stands for."""
        if not len(pairs):
            raise DataError("no pairs of texts to learn from; expected at least 1")
        (chosen, cut), (rejected, also_cut) = self._tokens(pairs.chosen), self._tokens(pairs.rejected)
        self.n_pairs, self.n_cut = len(pairs), cut + also_cut
        return chosen, rejected

    def rewards(self, texts: Sequence[str]) -> np.ndarray:
        """(N,) float64. The log-odds of one text over another are the difference of their rewards, whose level says nothing.

        Against `base_rate_text` of the same question they are those of beating the climatological forecast.
        """
        if not self.n_pairs:
            raise NotFittedError("the text reward model has seen no pairs; call fit, or load one that was fitted")
        tokens, _ = self._tokens(texts)
        out = np.empty(len(tokens))
        with one_thread(), torch.inference_mode():
            for i in range(0, len(tokens), _ROWS):
                some = tokens[i : i + _ROWS]
                out[i : i + _ROWS] = self._score(self.network.eval(), [*some, *[[]] * (_ROWS - len(some))])[: len(some)].numpy()
        return out

    def save(self, folder: str | Path) -> Path:
        """Write network, tokenizer and text_reward.json into `folder`."""
        folder = Path(folder)
        with _quiet():
            self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        settings = {name: value for name, value in asdict(self.settings).items() if name != "path"}
        about = {"kind": self.kind, "n_pairs": self.n_pairs, "n_cut": self.n_cut, "state_hash": self.state_hash, "settings": settings}
        (folder / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True))
        return folder / ABOUT

    @classmethod
    def load(cls, folder: str | Path) -> TextRewardModel:
        """The inverse of `save`. Raises `CheckpointError` where files are missing or do not match each other."""
        path = Path(folder) / ABOUT
        if not path.is_file():
            raise CheckpointError(f"no text reward model in {folder}; expected {ABOUT}")
        about: dict[str, Any] = json.loads(path.read_text())
        try:
            model = cls(TextSettings(path=str(folder), **about["settings"]))
        except ConfigError as error:
            raise CheckpointError(f"{path} has no network beside it; the run that wrote it was cut short: {error}") from error
        model.n_pairs, model.n_cut = about["n_pairs"], about["n_cut"]
        if model.state_hash != about["state_hash"]:
            raise CheckpointError(f"the network beside {path} does not hash to what it says; the two are from different runs")
        return model

    def _tokens(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """At most `length` - 1 tokens a text, so that every row ends in padding: without any, attention takes another path,
        whose last bits differ. And how many texts were cut."""
        if not texts:
            return [], 0
        whole = self.tokenizer(list(texts), return_attention_mask=False, verbose=False)["input_ids"]
        room = self.settings.length - 1
        long = [k for k, ids in enumerate(whole) if len(ids) > room]
        for k in long:
            whole[k] = self.tokenizer(texts[k], truncation=True, max_length=room, return_attention_mask=False)["input_ids"]
        return whole, len(long)

    def padded(self, tokens: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and attention mask (N,L) int64, filled up at their ends to the fixed length."""
        ids = torch.full((len(tokens), self.settings.length), self.network.config.pad_token_id)
        mask = torch.zeros_like(ids)
        mask[:, 0] = 1  # of an empty row too: attention to nothing is not a number
        for row, said in enumerate(tokens):
            ids[row, : len(said)], mask[row, : len(said)] = torch.tensor(said), 1
        return ids, mask

    def _score(self, network: nn.Module, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        ids, mask = self.padded(tokens)
        return network(input_ids=ids, attention_mask=mask).logits[:, 0]

    def _gap(self, network: nn.Module, chosen: Sequence[list[int]], rejected: Sequence[list[int]]) -> torch.Tensor:
        better, worse = self._score(network, [*chosen, *rejected]).chunk(2)
        return better - worse


def bradley_terry(gap: torch.Tensor, weight: torch.Tensor, smoothing: float) -> torch.Tensor:
    """(P,) weighted loss of reward gaps, chosen less rejected: the cross-entropy where a label is wrong with chance `smoothing`."""
    return weight * ((1.0 - smoothing) * nn.functional.softplus(-gap) + smoothing * nn.functional.softplus(gap))


def optimiser_of(network: nn.Module, settings: TextSettings) -> torch.optim.Optimizer:
    """AdamW. Matrices decay; biases and the scales of layer norms do not, as is the custom of fine-tuning."""
    free = [p for p in network.parameters() if p.requires_grad]
    matrices, rest = [p for p in free if p.ndim > 1], [p for p in free if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in another order are other bits: torch works on one thread inside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _begin(settings: TextSettings) -> tuple[Any, Any]:
    """Tokenizer and network of a folder, float32, the head drawn from the seed where the folder has none of one output."""
    folder = Path(settings.path).expanduser()
    expected = "expected a folder that save_pretrained wrote, with an encoder and its tokenizer"
    if not folder.is_dir():
        raise ConfigError(f"the path of the text reward model, {settings.path!r}, is no folder; {expected}")
    try:
        with torch.random.fork_rng(devices=[]), _quiet():
            torch.manual_seed(settings.seed)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            network: Any = AutoModelForSequenceClassification.from_pretrained(
                folder, num_labels=1, dtype=torch.float32, ignore_mismatched_sizes=True, local_files_only=True
            )
    except (OSError, ValueError, KeyError) as error:
        said = " ".join(str(error).split())[:120]
        raise ConfigError(f"the path of the text reward model, {settings.path!r}, holds no network ({said}); {expected}") from None
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if padding is None:
        raise ConfigError(f"the tokenizer of the text reward model in {settings.path!r} has no token to pad with; expected pad_token")
    network.config.pad_token_id = padding  # decoders look for the last token before it
    most = min(getattr(network.config, "max_position_embeddings", settings.length), tokenizer.model_max_length)
    if settings.length > most:
        raise ConfigError(f"length is {settings.length} tokens; the network in {settings.path!r} reads {most} at most: lower length")
    return tokenizer, network


@contextmanager
def _quiet() -> Iterator[None]:
    """No bar and no table of what was drawn anew: that the head is new is the point."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
