"""Models over text: what a text says of its subject's fortunes, and a vector to compare it with others. `build` makes them by name."""

from __future__ import annotations

from rlaif_ray.errors import ConfigError, did_you_mean
from rlaif_ray.text.protocols import Embedding, SentimentModel

MODELS = ("lexicon", "finbert")
EMBEDDINGS = ("hashing", "sentence_transformer")


def build(name: str, weights: str | None = None, *, device: str = "auto", batch: int = 32) -> SentimentModel:
    """The sentiment model of that name. Raises `ConfigError` for an unknown name, or weights that are not there.

    Parameters
    ----------
    weights : of `finbert`: a folder, or a name on the Hugging Face hub.
    device : of `finbert`: cpu, cuda, mps, or auto, the fastest that is there.
    batch : of `finbert`: passages that go through the network at once.
    """
    match name:
        case "lexicon":
            from rlaif_ray.text.lexicon import Lexicon

            return Lexicon()
        case "finbert":
            from rlaif_ray.text.finbert import FinBERT

            return FinBERT(weights, device=device, batch=batch)
        case _:
            raise ConfigError(f"no text model {name!r}; expected one of {', '.join(MODELS)}.{did_you_mean(name, MODELS)}")


def build_embedding(name: str, weights: str | None = None, *, device: str = "auto") -> Embedding:
    """The embedding of that name. Raises `ConfigError` for an unknown name, a missing extra, or weights that are not there."""
    match name:
        case "hashing":
            from rlaif_ray.text.embeddings import Hashing

            return Hashing()
        case "sentence_transformer":
            from rlaif_ray.text.embeddings import SentenceEmbedding

            return SentenceEmbedding(weights, device=device)
        case _:
            raise ConfigError(f"no embedding {name!r}; expected one of {', '.join(EMBEDDINGS)}.{did_you_mean(name, EMBEDDINGS)}")


def made_by(name: str, weights: str | None = None) -> str:
    """What a model or an embedding is, without loading it: its name, and the hash of its words or weights."""
    if name == "hashing":
        return name
    if name == "lexicon":
        return f"{name}:{build(name).fingerprint}"
    from rlaif_ray.text.weights import fingerprint, folder_of

    return f"{name}:{fingerprint(folder_of(weights))}"
