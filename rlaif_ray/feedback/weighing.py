"""Three ways for a manager to weigh a desk: by the reward model, by shrunk track records, and everyone alike.

A weigher is fitted on what had closed, stored in a folder and asked in the context of an opinion.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rlaif_ray.core import MarketView, OpinionTable, content_hash
from rlaif_ray.errors import CheckpointError, DataError
from rlaif_ray.feedback.context import context_features
from rlaif_ray.feedback.intervals import clusters_of, standard_error
from rlaif_ray.feedback.outcomes import OutcomeTable
from rlaif_ray.feedback.preferences import PairTable
from rlaif_ray.feedback.reward_model import RewardModel, Settings, softmax

Kind = Literal["reward_model", "track_record", "equal_weights"]


@dataclass(frozen=True)
class EqualWeights:
    """Every author who spoke weighs the same. Holds why, so that nobody takes it for a learned judge."""

    authors: tuple[str, ...]
    reason: str
    kind: Kind = "equal_weights"

    @property
    def state_hash(self) -> str:
        """Of all that it says."""
        return content_hash(self)

    def weights(self, context: np.ndarray, p_up: np.ndarray, traits: np.ndarray | None = None) -> np.ndarray:
        """(...,K) 1 / number of authors who spoke; 0 for who abstained."""
        return softmax(np.where(np.isfinite(p_up), 0.0, np.nan))

    def save(self, folder: str | Path) -> Path:
        """Write equal_weights.json into `folder`."""
        return _write(self, folder)


@dataclass(frozen=True)
class TrackRecord:
    """Authors weigh by their mean score on closed outcomes, shrunk to the desk's: what is left of it when luck is taken out."""

    authors: tuple[str, ...]
    mean: tuple[float, ...]  # (K,) nats; NaN for who has no closed outcome
    error: tuple[float, ...]  # (K,) standard error of the mean, dates that share bars being one draw; NaN where too few tell
    shrunk: tuple[float, ...]  # (K,)
    n_pairs: int
    kind: Kind = "track_record"

    @property
    def state_hash(self) -> str:
        """Of all fitted numbers."""
        return content_hash(self)

    @classmethod
    def fit(cls, outcomes: OutcomeTable, rows: slice, n_pairs: int = 0) -> TrackRecord:
        """From the outcomes that opened and closed inside `rows` (closing row < stop)."""
        known = (outcomes.opened_row >= rows.start) & (outcomes.closed_row < rows.stop)
        score = outcomes.score[known]
        groups = np.repeat(clusters_of(outcomes.opened_row[known], outcomes.horizon_bars), score.shape[1])
        by_author = score.reshape(len(groups), -1).T
        mean = np.array([x[np.isfinite(x)].mean() if np.isfinite(x).any() else np.nan for x in by_author])
        error = np.array([standard_error(x, groups) for x in by_author])
        return cls(outcomes.authors, tuple(mean.tolist()), tuple(error.tolist()), tuple(shrunk(mean, error).tolist()), n_pairs)

    def weights(self, context: np.ndarray, p_up: np.ndarray, traits: np.ndarray | None = None) -> np.ndarray:
        """(...,K) in proportion to the shrunk scores above 0; where nobody who spoke has one, the same for all who did."""
        spoke = np.isfinite(p_up)
        worth = np.where(spoke, np.maximum(self.shrunk, 0.0), 0.0)
        worth = np.where(worth.sum(axis=-1, keepdims=True) > 0, worth, spoke)
        total = worth.sum(axis=-1, keepdims=True)
        return worth / np.where(total > 0, total, 1.0)

    def save(self, folder: str | Path) -> Path:
        """Write track_record.json into `folder`."""
        return _write(self, folder)


Weigher = RewardModel | TrackRecord | EqualWeights


def shrunk(mean: np.ndarray, error: np.ndarray) -> np.ndarray:
    """(K,) means drawn to their centre by as much as their errors explain how they differ: empirical Bayes.

    The variance between authors is what the errors do not explain (DerSimonian and Laird 1986, eq. 8), each is then its
    posterior mean under a normal prior (Efron and Morris 1975). Who has no record of their own stands at the centre. Errors
    are taken as independent between authors.
    """
    known = np.isfinite(mean) & np.isfinite(error) & (error > 0)
    if not known.any():
        return np.zeros(len(mean))
    precision = np.where(known, 1.0 / np.where(known, error, 1.0) ** 2, 0.0)
    m = np.where(known, mean, 0.0)
    pooled = (precision * m).sum() / precision.sum()
    excess = (precision * np.where(known, m - pooled, 0.0) ** 2).sum() - (known.sum() - 1)
    scale = precision.sum() - (precision**2).sum() / precision.sum()
    between = max(0.0, excess / scale) if scale > 0 else 0.0
    trust = between * precision / (between * precision + 1.0)  # between / (between + error^2); 0 for who has no record
    by_trust = np.where(known, 1.0 / (between + np.where(known, error, 1.0) ** 2), 0.0)
    centre = (by_trust * m).sum() / by_trust.sum()
    return centre + trust * (m - centre)


def fit_weigher(
    kind: Kind, rows: slice, context: np.ndarray, opinions: OpinionTable, outcomes: OutcomeTable, judged: PairTable, settings: Settings,
    *, min_pairs: int,
) -> Weigher:  # fmt: skip
    """A weigher from what opened and closed inside `rows`, whatever else stands in the tables.

    `EqualWeights`, with the reason, where it was asked for or fewer than `min_pairs` pairs had closed.
    """
    usable = judged.inside(rows)
    if kind == "equal_weights":
        return EqualWeights(opinions.authors, "equal weights were asked for")
    if len(usable) < min_pairs:
        name = kind.replace("_", " ")
        return EqualWeights(opinions.authors, f"{len(usable)} judged pairs had closed; at least {min_pairs} are needed for a {name}")
    if kind == "track_record":
        return TrackRecord.fit(outcomes, rows, len(usable))
    return RewardModel(settings).fit(context, opinions, usable)


def load_weigher(folder: str | Path) -> Weigher:
    """The inverse of `save`. Raises `CheckpointError` where files are missing, do not match each other or are of two weighers."""
    folder = Path(folder)
    made: dict[str, Callable[[], Weigher]] = {
        "reward_model": lambda: RewardModel.load(folder),
        "track_record": lambda: TrackRecord(**_read(folder / "track_record.json")),
        "equal_weights": lambda: EqualWeights(**_read(folder / "equal_weights.json")),
    }
    there = [kind for kind in made if (folder / f"{kind}.json").is_file()]
    if len(there) != 1:
        raise CheckpointError(f"{folder} holds {there or 'no weigher'}; expected one of {', '.join(f'{kind}.json' for kind in made)}")
    return made[there[0]]()


def weigh_with(weigher: Weigher) -> Callable[..., np.ndarray]:
    """How a manager asks: (view, moment of the opinions, authors (K,), p_up (A,K), traits (A,K,X) or None) -> weights (A,K).

    The context is that of the moment of the opinions, as in training. Raises `DataError` for an author that it never judged.
    """

    def weigh(
        view: MarketView, opined_at: np.datetime64, authors: tuple[str, ...], p_up: np.ndarray, traits: np.ndarray | None = None
    ) -> np.ndarray:  # fmt: skip
        strangers = [a for a in authors if a not in weigher.authors]
        if strangers:
            raise DataError(f"the judge knows {', '.join(weigher.authors)}; it cannot weigh {', '.join(strangers)}")
        columns = [weigher.authors.index(a) for a in authors]
        known = np.full((len(p_up), len(weigher.authors)), np.nan)
        known[:, columns] = p_up
        texts = None
        if traits is not None:
            texts = np.full((*known.shape, traits.shape[-1]), np.nan)
            texts[:, columns] = traits
        history = view.history()
        return weigher.weights(context_features(history, [history.row(opined_at)])[0], known, texts)[:, columns]

    return weigh


def _write(weigher: TrackRecord | EqualWeights, folder: str | Path) -> Path:
    path = Path(folder) / f"{weigher.kind}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(weigher), indent=1, sort_keys=True))
    return path


def _read(path: Path) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(path.read_text()).items()}
