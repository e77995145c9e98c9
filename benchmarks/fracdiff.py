"""Fractional differences and the filtered hidden Markov model against what is there to use: `python -m benchmarks.fracdiff`.

mlfinpy runs in an environment of its own (`python -m benchmarks.peers` makes it); without it its row says "not run".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from hmmlearn.hmm import GaussianHMM

from benchmarks.peers import Peer, in_turn_with, interpreter
from benchmarks.rows import Row, in_turn, main, own_time
from rlaif_ray.features.fracdiff import FRACDIFF, fixed_width, weights
from rlaif_ray.features.hmm import filtered

ORDERS: Any = [spec.parameters for family in FRACDIFF.families for spec in family.specs()]  # (order, least weight) of the catalogue
ORDER, THRESHOLD, TARGET = 0.4, 1e-4, 50.0


def rows(quick: bool) -> list[Row]:
    """Order 0.4, 282 bars wide; the five orders of the catalogue, 64 to 388 bars wide; and P(state) of three states at every bar."""
    return [_against_mlfinpy(4_000 if quick else 20_000), _against_pandas(50_000 if quick else 200_000), _filter(300 if quick else 1_000)]


def _against_mlfinpy(bars: int) -> Row:
    x = _walk(bars)
    name, peer_name, unit = f"fracdiff {ORDER:g}, {bars:,} bars", "mlfinpy, frac_diff_ffd", "rows/s"
    if not interpreter("mlfinpy").exists():
        return Row.not_run(name, bars / own_time(lambda: _ours(x)), peer_name, unit, TARGET)
    with Peer("mlfinpy", "fracdiff", x=x, order=ORDER, threshold=THRESHOLD) as peer:
        peer.seconds()
        apart = _apart(_ours(x), peer.found("x"))
        seconds, peer_seconds = in_turn_with(lambda: _ours(x), peer)
    note = f"Largest difference {apart:.0e}. It goes row by row, as the book's snippet does."
    return Row(name, bars / seconds, peer_name, bars / peer_seconds, peer_seconds / seconds, unit, TARGET, note)


def _against_pandas(bars: int) -> Row:
    x = _walk(bars)
    series, kernels = pd.Series(x), [weights(*order) for order in ORDERS]

    def ours() -> list[np.ndarray]:
        return [fixed_width(x, weights(*order)) for order in ORDERS]

    def theirs() -> list[np.ndarray]:
        return [_rolling(series, w[::-1].copy()) for w in kernels]

    apart = max(_apart(a, b) for a, b in zip(ours(), theirs(), strict=True))
    seconds, peer_seconds = in_turn(ours, theirs)
    name, peer_name = f"fracdiff, {len(ORDERS)} orders, {bars:,} bars", "pandas, rolling.apply of a dot product on raw windows"
    work, note = bars * len(ORDERS), f"Largest difference {apart:.0e}."
    return Row(name, work / seconds, peer_name, work / peer_seconds, peer_seconds / seconds, "values/s", TARGET, note)


def _rolling(series: pd.Series, w: np.ndarray) -> np.ndarray:
    return np.asarray(series.rolling(len(w)).apply(lambda window: w @ window, raw=True))


def _filter(bars: int) -> Row:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((bars, 2))
    start, transition = np.full(3, 1 / 3), 0.9 * np.eye(3) + 0.1 / 3
    means, covariances = rng.standard_normal((3, 2)), np.tile(np.eye(2), (3, 1, 1))
    model = GaussianHMM(3, "full")
    model.startprob_, model.transmat_, model.means_, model.covars_ = start, transition, means, covariances

    def ours() -> np.ndarray:
        return filtered(x, start, transition, means, covariances)

    def theirs() -> np.ndarray:
        return np.array([model.predict_proba(x[: t + 1])[-1] for t in range(bars)])

    apart = _apart(ours(), theirs())
    seconds, peer_seconds = in_turn(ours, theirs)
    note = f"Largest difference {apart:.0e}. hmmlearn has no filter: what it knew by a bar is its posterior of the bars until then."
    name, peer_name = f"filtered HMM, 3 states, {bars:,} bars", "hmmlearn, predict_proba of every prefix"
    return Row(name, bars / seconds, peer_name, bars / peer_seconds, peer_seconds / seconds, "rows/s", None, note)


def _ours(x: np.ndarray) -> np.ndarray:
    return fixed_width(x, weights(ORDER, THRESHOLD))


def _walk(bars: int) -> np.ndarray:
    return 0.01 * np.random.default_rng(0).standard_normal(bars).cumsum()


def _apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference; both are undefined on the same rows."""
    assert np.array_equal(np.isnan(ours), np.isnan(theirs)), "undefined on other rows"
    apart = float(np.nanmax(np.abs(ours - theirs)))
    assert apart < 1e-10, f"values differ by {apart}"
    return apart


if __name__ == "__main__":
    main(rows)
