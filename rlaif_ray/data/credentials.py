"""Vendors' keys, from the environment only."""

from __future__ import annotations

import os

from rlaif_ray.errors import ConfigError


def credentials(*names: str) -> list[str]:
    """The values of these environment variables. Read where they are used, so that nothing that is pickled or logged holds one.

    Raises `ConfigError` that names all that are missing.
    """
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ConfigError(f"{' and '.join(missing)} {verb} not set; expected in the environment of every node")
    return [os.environ[name] for name in names]
