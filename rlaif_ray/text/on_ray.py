"""Documents on the cluster: those that a text model has not read yet, from the lake, and what it says of them back to the lake."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import polars as pl
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from rlaif_ray.data.lake import MONTH, Lake
from rlaif_ray.data.revisions import REVISION
from rlaif_ray.data.tables import TEXT_SCHEMA
from rlaif_ray.errors import RlaifError
from rlaif_ray.text import build, build_embedding, made_by
from rlaif_ray.text.protocols import Embedding, SentimentModel

DOCUMENTS_A_COMMIT = 4096
DOCUMENTS_A_CALL = 512  # what an actor sorts by length and answers at once
NEED_NO_ACTOR = ("lexicon", "hashing")
_SCORED = pa.schema({
    "id": pa.string(), "told_at": pa.timestamp("us", "UTC"), "kind": pa.string(), "section": pa.string(), "source": pa.string(),
    "score": pa.float32(), "confidence": pa.float32(), "words": pa.int32(), "vector": pa.list_(pa.float32()), "problem": pa.binary(),
})  # fmt: skip
_DOCUMENT = ("id", "known_at", "kind", "section", "source", "title", "text")


@dataclass(frozen=True)
class Reader:
    """A sentiment model and an embedding by name: built where texts are read. See `text.build`."""

    model: str = "lexicon"
    weights: str | None = None
    embedding: str = "hashing"
    embedding_weights: str | None = None
    device: str = "auto"
    batch: int = 32

    @property
    def table(self) -> str:
        return f"text_{self.model}"

    def build(self) -> tuple[SentimentModel, Embedding]:
        return (
            build(self.model, self.weights, device=self.device, batch=self.batch),
            build_embedding(self.embedding, self.embedding_weights, device=self.device),
        )

    def made_by(self) -> str:
        """What the column `model` says: the names, and the hash of all weights."""
        return f"{made_by(self.model, self.weights)}/{made_by(self.embedding, self.embedding_weights)}"


@dataclass(frozen=True)
class ReadTexts:
    """What a pass over the documents did. `waiting`: mentions of documents that the lake does not have (yet)."""

    table: str
    model: str
    documents: int
    added: int
    waiting: int


def read_texts(lake: Lake, reader: Reader, *, actors: int | None = None) -> ReadTexts:
    """Score every mentioned document that this model has not scored, and append a row for each symbol that it names.

    A document counts as it was first told: a story that is updated is not news again, and is not scored again. A row is known
    when both the document and the mention are. Each document is read once, however many symbols it names; one commit for
    every 4,096 documents, so that a pass that is cut off goes on where it ended. Other weights score everything again: their
    rows are revisions of those before.

    Parameters
    ----------
    reader : the model `lexicon` with `hashing` vectors runs in plain tasks; a network in a pool of actors, which keep it loaded.
    actors : their number; None: one a GPU, else (no GPU, or device cpu or mps) one a CPU.

    Raises `ConfigError` for weights that are missing here, `MissingDataError` for a lake without documents or mentions.
    """
    model = reader.made_by()
    pending, waiting = _pending(lake, reader.table, model)
    documents = pending.unique("id", maintain_order=True)
    if not documents.height:
        return ReadTexts(reader.table, model, 0, 0, waiting)
    read = _reading(lake, documents, reader, actors)
    added = 0
    for part in read.iter_batches(batch_size=DOCUMENTS_A_COMMIT, batch_format="pyarrow"):
        scored = pl.DataFrame(pl.from_arrow(part))
        for problem in scored["problem"].drop_nulls():
            raise pickle.loads(problem)
        rows = pending.join(scored, on="id").with_columns(known_at=pl.max_horizontal("known_at", "told_at"), model=pl.lit(model))
        added += lake.append(reader.table, rows.select(*TEXT_SCHEMA).cast(pl.Schema(TEXT_SCHEMA)), f"{scored.height} documents")
    return ReadTexts(reader.table, model, documents.height, added, waiting)


def _pending(lake: Lake, table: str, model: str) -> tuple[pl.DataFrame, int]:
    """Mentions of documents that were not scored yet (with `month`, the document's folder), by month; and how many wait."""
    mentions = lake.read("mentions", revision="first")
    if table in lake.tables():
        done = lake.ask(table, lambda rows: rows.filter(pl.col("model") == model).select("symbol", "id").unique())
        mentions = mentions.join(done, on=["symbol", "id"], how="anti")
    told = lake.ask("documents", lambda rows: rows.filter(pl.col(REVISION) == 0).select("id", MONTH))
    there = mentions.join(told, on="id")
    return there.sort(MONTH, "id", "symbol"), mentions.height - there.height


def _reading(lake: Lake, documents: pl.DataFrame, reader: Reader, actors: int | None) -> Any:
    """A dataset of what the reader says of documents: their texts are read, scored and dropped a few blocks at a time."""
    blocks = [
        {MONTH: part[MONTH][0], "ids": part["id"].to_list()}
        for of_month in documents.partition_by(MONTH, maintain_order=True)
        for part in of_month.iter_slices(DOCUMENTS_A_CALL)
    ]
    texts = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        partial(_texts, lake=lake), batch_size=1, batch_format="pyarrow"
    )
    return read_by(reader, texts, min(len(blocks), actors or _seats(reader)))


def read_by(reader: Reader, texts: Any, actors: int) -> Any:
    """A dataset of documents (`id, known_at, kind, section, source, title, text`) -> one of what the reader says of them.

    Of more actors than GPUs some share one: what one cuts into words the other's network reads.
    """
    if (reader.model, reader.embedding) == NEED_NO_ACTOR:
        return texts.map_batches(partial(_read_in_task, reader=reader), batch_size=DOCUMENTS_A_CALL, batch_format="pyarrow")
    return texts.map_batches(
        _Seat, fn_constructor_args=(reader,), batch_size=DOCUMENTS_A_CALL, batch_format="pyarrow",
        compute=ActorPoolStrategy(size=actors), num_gpus=min(1.0, _gpus(reader) / actors),
    )  # fmt: skip


def _seats(reader: Reader) -> int:
    return _gpus(reader) or int(ray.cluster_resources().get("CPU", 1))


def _gpus(reader: Reader) -> int:
    return 0 if reader.device in ("cpu", "mps") else int(ray.cluster_resources().get("GPU", 0))


def _texts(batch: pa.Table, lake: Lake) -> pa.Table:
    """Documents of one folder, as they were first told."""
    month, ids = batch[MONTH][0].as_py(), batch["ids"][0].as_py()
    rows = lake.ask(
        "documents", lambda all_: all_.filter(pl.col(MONTH) == month, pl.col("id").is_in(ids), pl.col(REVISION) == 0).select(_DOCUMENT)
    )
    return rows.to_arrow()


class _Seat:
    """A reader in its own process, with its networks loaded."""

    def __init__(self, reader: Reader) -> None:
        try:
            self._built = reader.build()
        except RlaifError as error:
            self._built = error

    def __call__(self, batch: pa.Table) -> pa.Table:
        if isinstance(self._built, RlaifError):  # travels as a value: of what an actor dies of Ray keeps the words only
            return pa.Table.from_pylist([{"problem": pickle.dumps(self._built)}], _SCORED)
        return read_batch(*self._built, batch)


def _read_in_task(batch: pa.Table, reader: Reader) -> pa.Table:
    return read_batch(*_built(reader), batch)


_built = cache(Reader.build)  # once a worker process


def read_batch(model: SentimentModel, embedding: Embedding, batch: pa.Table) -> pa.Table:
    """What the models say of documents, without their texts; a title that the text does not begin with stands before it."""
    documents = pl.DataFrame(pl.from_arrow(batch))
    texts = [_whole(title, text) for title, text in documents.select("title", "text").iter_rows()]
    score, confidence = model.score(texts)
    said = documents.rename({"known_at": "told_at"}).with_columns(
        score=pl.Series(score), confidence=pl.Series(confidence), words=pl.Series([len(text.split()) for text in texts], dtype=pl.Int32),
        vector=pl.Series(embedding.vectors(texts).tolist(), dtype=pl.List(pl.Float32)), problem=pl.lit(None, pl.Binary),
    )  # fmt: skip
    return said.select(_SCORED.names).to_arrow().cast(_SCORED)


def _whole(title: str | None, text: str | None) -> str:
    text = text or ""
    return text if not title or text.startswith(title) else f"{title}. {text}"
