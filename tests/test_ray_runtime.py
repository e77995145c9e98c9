"""What is refused before Ray starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaif_ray.errors import ConfigError
from rlaif_ray.ray_runtime import refuse_two_faiss


def test_two_builds_of_faiss_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("faiss_cpu", "faiss_gpu"):
        refuse_two_faiss()
        folder = tmp_path / f"{name}-1.15.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.15.0\n")
    with pytest.raises(ConfigError, match=r"faiss-cpu and faiss-gpu are both installed.*pip uninstall"):
        refuse_two_faiss()
