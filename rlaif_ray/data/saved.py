"""A vendor's answer as it was saved: plain or gzipped."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from rlaif_ray.errors import DataError


def read_bytes(path: Path) -> bytes:
    """The content, unpacked where the name ends in `.gz`. Raises `DataError` for a file that cannot be read."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); expected the vendor's answer, plain or gzipped") from None


def read_json(path: Path) -> Any:
    """The value. Raises `DataError` for what is no JSON."""
    try:
        return json.loads(read_bytes(path))
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); expected the vendor's answer as it came") from None
