"""Pairs from closed outcomes: how time grows with opinions, and against pandas' own join: `python -m benchmarks.feedback_pairs`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.rows import Row, in_turn, main, own_time, peak_mb
from rlaif_ray.core import OpinionTable
from rlaif_ray.feedback.outcomes import OutcomeTable
from rlaif_ray.feedback.preferences import CLIMATOLOGY, PairTable, pairs

TIE = 0.05
VOICES, SYMBOLS, EVERY, HORIZON = 5, 100, 5, 20  # opinions every 5 bars over 20
KEYS = ["symbol", "as_of", "prompt_hash"]


def rows(quick: bool) -> list[Row]:
    """Time an opinion as there are more of them, memory with the most, and a pandas merge that makes the same pairs."""
    sizes = (20_000, 100_000) if quick else (100_000, 1_000_000, 4_000_000)
    return [*_linear(sizes), _against_pandas(sizes[0])]


def _linear(sizes: tuple[int, ...]) -> list[Row]:
    found = []
    for size in sizes:
        outcomes, opinions = closed(size)
        made = len(pairs(outcomes, tie=TIE, opinions=opinions))
        found.append((size, own_time(lambda o=outcomes, s=opinions: pairs(o, tie=TIE, opinions=s)) / size * 1e9, made))
    first, first_ns, _ = found[0]
    return [
        Row(
            f"pairs of {size:,} opinions", ns, f"ours, {first:,} opinions", first_ns, first_ns / ns, "ns an opinion", 0.8,
            f"{made:,} pairs of {VOICES} voices and climatology, every {EVERY} bars over {HORIZON}: weights, kinds and heads too. "
            f"A ratio of 1 is linear. Most memory {peak_mb(_once, size):,.0f} MB.",
        )
        for size, ns, made in found[1:]
    ]  # fmt: skip


def _against_pandas(size: int) -> Row:
    outcomes, opinions = closed(size)
    long = as_long(outcomes, opinions)

    def ours() -> PairTable:
        return pairs(outcomes, tie=TIE, metric=outcomes.score, opinions=opinions)  # tied by the actual difference, as the join is

    mine, theirs = ours(), merged(long)
    table = mine.take(mine.rivals)
    assert len(table) == len(theirs) > size, f"{len(table)} pairs against {len(theirs)}"
    columns = {"date": table.date, "asset": table.asset, "chosen": table.chosen, "rejected": table.rejected, "margin": table.margin}
    for name, values in columns.items():
        assert np.array_equal(theirs[name].to_numpy(), values), f"{name} differs"
    seconds, peer_seconds = in_turn(ours, lambda: merged(long))
    note = (
        f"The same {len(table):,} pairs of two voices, bit for bit. Ours makes those against climatology, weights, kinds and heads "
        "besides; the peer makes the pairs alone, of opinions that lie in long form."
    )
    name, peer_name = f"pairs of {size:,} opinions", "pandas, opinions merged with themselves (reference)"
    return Row(name, size / seconds, peer_name, size / peer_seconds, peer_seconds / seconds, "opinions/s", None, note)


def merged(long: pd.DataFrame) -> pd.DataFrame:
    """Every two opinions on one symbol, moment and prompt hash whose scores are `TIE` apart, the better one first."""
    met = long.merge(long, on=KEYS, suffixes=("_a", "_b"))
    met = met[met["voice_a"] < met["voice_b"]]
    met = met[np.abs(met["score_a"] - met["score_b"]) >= TIE]
    gap, sides = met["score_a"] - met["score_b"], (met["voice_a"], met["voice_b"])
    out = pd.DataFrame({
        "date": met["date_a"], "asset": met["asset_a"], "chosen": np.where(gap > 0, *sides), "rejected": np.where(gap > 0, *sides[::-1]),
        "margin": np.abs(gap),
        "first": met["voice_a"], "second": met["voice_b"],
    })  # fmt: skip
    return out.sort_values(["date", "asset", "first", "second"])


def as_long(outcomes: OutcomeTable, opinions: OpinionTable) -> pd.DataFrame:
    """One row a judged opinion."""
    assert opinions.prompts is not None
    date, asset, voice = np.nonzero(np.isfinite(outcomes.score))
    return pd.DataFrame({
        "symbol": np.asarray(outcomes.symbols)[asset], "as_of": outcomes.as_of[date], "prompt_hash": opinions.prompts[date, asset, voice],
        "voice": voice, "date": date, "asset": asset, "score": outcomes.score[date, asset, voice],
    })  # fmt: skip


def closed(size: int) -> tuple[OutcomeTable, OpinionTable]:
    """About `size` opinions with scores, drawdowns, texts and prompts drawn at random; a tenth abstained, a tenth asked otherwise."""
    rng = np.random.default_rng(0)
    dates = round(size / (0.9 * SYMBOLS * VOICES))
    shape = dates, SYMBOLS, VOICES
    score = np.where(rng.random(shape) < 0.1, np.nan, rng.normal(0.0, 0.2, shape))
    opened = EVERY * np.arange(dates)
    as_of = np.datetime64("1970-01-01", "us") + opened * np.timedelta64(1, "h")
    symbols, names = tuple(f"S{i:03d}" for i in range(SYMBOLS)), tuple("ABCDE"[:VOICES])
    prompts = np.where(rng.random(shape) < 0.1, np.uint64(7), np.uint64(5))
    flat = np.zeros(shape)
    outcomes = OutcomeTable(
        as_of, opened, opened + HORIZON, as_of + np.timedelta64(HORIZON, "h"), symbols, names, HORIZON, flat[..., 0], flat[..., 0] + 0.5,
        score, flat, flat, flat, flat, rng.uniform(0.0, 0.1, shape), flat, np.zeros(shape[:2], np.int8),
    )  # fmt: skip
    words = rng.integers(1, 6, (*shape, 1)).astype(np.float32)
    said = OpinionTable(
        as_of, symbols, names, np.where(np.isnan(score), np.nan, 0.6), HORIZON, prompts=prompts, traits=words, trait_names=("log_words",)
    )  # fmt: skip
    return outcomes, said


def _once(size: int) -> int:
    outcomes, opinions = closed(size)
    table = pairs(outcomes, tie=TIE, opinions=opinions)
    assert ((table.chosen != CLIMATOLOGY) | (table.rejected != CLIMATOLOGY)).all()
    return len(table)


if __name__ == "__main__":
    main(rows)
