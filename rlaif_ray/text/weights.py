"""Where the weights of a network lie, and a hash that tells them from others."""

from __future__ import annotations

import hashlib
from pathlib import Path

from huggingface_hub import snapshot_download

from rlaif_ray.errors import ConfigError

_FILES = ("*.json", "*.txt", "*.safetensors", "*.bin")


def folder_of(weights: str | None, instead: str = "the model 'lexicon'") -> str:
    """Where the weights lie; from the hub they are fetched first. Raises `ConfigError` where there are none."""
    expected = f"expected a folder or a name on the Hugging Face hub, or {instead}, which needs none"
    if weights is None:
        raise ConfigError(f"the weights of a text model are not set; {expected}")
    if Path(weights).expanduser().is_dir():
        return str(Path(weights).expanduser())
    try:
        return snapshot_download(weights, allow_patterns=list(_FILES))
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:120]
        raise ConfigError(f"{weights} is no folder, and the hub has no such weights at hand ({said}); {expected}") from None


def fingerprint(folder: str) -> str:
    """Hash of the weights and whatever shapes what they say: 16 hex digits."""
    digest = hashlib.sha256()
    for path in sorted({p for pattern in _FILES for p in Path(folder).glob(pattern)}):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while part := file.read(2**24):
                digest.update(part)
    return digest.hexdigest()[:16]
