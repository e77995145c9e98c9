"""What happens before Ray starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaif_ray.errors import ConfigError
from rlaif_ray.ray_runtime import kernels_digest, refuse_two_faiss


def test_two_builds_of_faiss_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("faiss_cpu", "faiss_gpu"):
        refuse_two_faiss()
        folder = tmp_path / f"{name}-1.15.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.15.0\n")
    with pytest.raises(ConfigError, match=r"faiss-cpu and faiss-gpu are both installed.*pip uninstall"):
        refuse_two_faiss()


def test_kernels_of_other_sources_are_compiled_anew(tmp_path: Path) -> None:
    kernel, words = tmp_path / "deep" / "kernel.py", tmp_path / "words.py"
    kernel.parent.mkdir()
    kernel.write_text("@njit\ndef f(x): return x")
    words.write_text("A = 1")
    before = kernels_digest(tmp_path)
    words.write_text("A = 2")
    assert kernels_digest(tmp_path) == before
    kernel.write_text("@njit\ndef f(x): return 2 * x")
    assert kernels_digest(tmp_path) != before
