"""Texts through a pool of actors against the same network in a bare loop: `python -m benchmarks.text [--json]`.

A FinBERT with random weights: BERT-base where there is a CUDA device, four layers of 256 where there is none. Elapsed time, not CPU
time: what is asked is whether the pool keeps the device busy. Start and loading of the actors are left out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from benchmarks.rows import Row, main
from rlaif_ray import ray_runtime

ray_runtime.set_environment()  # before Ray and torch are imported

import ray  # noqa: E402
import torch  # noqa: E402

from rlaif_ray.text.on_ray import DOCUMENTS_A_CALL, Reader, read_batch, read_by  # noqa: E402

PEER = "bare loop over the same batches, one process"
WORDS = 30_000


def rows(quick: bool) -> list[Row]:
    """Texts a second through one actor and, on a GPU, through two that share it."""
    cuda = torch.cuda.is_available()
    calls, repeats = ((12, 1) if quick else (40, 3)) if cuda else ((6, 1) if quick else (10, 3))
    ray_runtime.attach()
    try:
        with TemporaryDirectory() as folder:
            _save_finbert(Path(folder), cuda)
            reader = Reader("finbert", folder, device="cuda" if cuda else "cpu", batch=256 if cuda else 32)
            return _compared(reader, _documents(calls * DOCUMENTS_A_CALL), repeats, (1, 2) if cuda else (1,))
    finally:
        ray_runtime.detach()


def _compared(reader: Reader, documents: pl.DataFrame, repeats: int, pools: tuple[int, ...]) -> list[Row]:
    parts = [part.to_arrow() for part in documents.iter_slices(DOCUMENTS_A_CALL)]
    own = reader.build()
    read_batch(*own, parts[0])
    apart, bare = 0.0, []
    pooled: dict[int, list[float]] = {actors: [] for actors in pools}
    for _ in range(repeats):
        for actors, rates in pooled.items():
            rate, ours = _rate(iter(read_by(reader, ray.data.from_arrow(parts), actors).iter_batches(
                batch_size=DOCUMENTS_A_CALL, batch_format="pyarrow", prefetch_batches=0,
            )), skip=2 * actors)  # fmt: skip
            rates.append(rate)
            rate, theirs = _rate((read_batch(*own, part) for part in parts), skip=2)
            bare.append(rate)
            a, b = (said.sort("id") for said in (ours, theirs))
            apart = max(apart, np.abs(a["score"].to_numpy() - b["score"].to_numpy()).max())
            assert apart < 1e-5 and a["id"].equals(b["id"]), f"the pool and the loop differ by {apart}"
    note = f"About {documents['words'].median():.0f} words a text; device: {_device()}, {reader.batch} passages at once. "
    note += "Scores equal to the bit." if apart == 0 else f"Largest difference of a score {apart:.0e}."
    return [
        Row(f"FinBERT and hashed vectors, {documents.height:,} texts, {actors} actor{'s' * (actors > 1)}", median(rates), PEER,
            median(bare), median(rates) / median(bare), "texts/s", 0.9 if actors == 1 else None, note)
        for actors, rates in pooled.items()
    ]  # fmt: skip


def _rate(batches: Iterator, skip: int) -> tuple[float, pl.DataFrame]:
    """Texts a second from the arrival of the batch number `skip` to that of the last, and all that arrived."""
    arrived, parts = [], []
    for part in batches:
        arrived.append(time.perf_counter())
        parts.append(pl.DataFrame(pl.from_arrow(part)))
    texts = sum(part.height for part in parts[skip:])
    return texts / (arrived[-1] - arrived[skip - 1]), pl.concat(parts)


def _documents(n: int) -> pl.DataFrame:
    """Headlines and short stories, 10 to some 200 words."""
    rng = np.random.default_rng(0)
    words = np.clip(np.exp(rng.normal(3.3, 0.7, n)), 10, 200).astype(int)
    at = pl.Series(np.datetime64("2020-01-01", "us") + np.arange(n) * np.timedelta64(1, "m")).dt.replace_time_zone("UTC")
    text = [" ".join(f"w{w}" for w in rng.integers(0, WORDS, k)) for k in words]
    return pl.DataFrame({
        "id": [f"d{k}" for k in range(n)], "known_at": at, "kind": "news", "section": None, "source": "wire", "title": None, "text": text,
        "words": words,
    }, schema_overrides={"section": pl.String, "title": pl.String})  # fmt: skip


def _save_finbert(folder: Path, base: bool) -> None:
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{k}" for k in range(WORDS))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=512).save_pretrained(folder)
    shape: Any = {} if base else {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(vocabulary), id2label={0: "positive", 1: "negative", 2: "neutral"}, **shape)
    BertForSequenceClassification(config).save_pretrained(folder)


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU, one thread"


if __name__ == "__main__":
    main(rows)
