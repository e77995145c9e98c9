"""Small SVG charts for the report: no script, no network, colours from the page's CSS variables.

Every function returns one `<svg>` string whose text scales with the page; series are (label, css class) keyed so that
one policy keeps one colour in every chart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 26


@dataclass(frozen=True)
class Series:
    label: str
    css: str  # class that carries the colour
    y: np.ndarray  # (T,) float; NaN breaks the line


def time_lines(times: Sequence[str], series: Sequence[Series], *, log: bool = False, percent: bool = False, title: str) -> str:
    """Lines over time. `times` are ISO dates, one for each point; `log` draws the y axis in logarithms."""
    values = np.concatenate([s.y for s in series])
    values = np.log(values) if log else values
    low, high = _range(values)
    x = np.linspace(LEFT, WIDTH - RIGHT, num=len(times))

    def to_y(y: np.ndarray) -> np.ndarray:
        scaled = np.log(y) if log else y
        return TOP + (high - scaled) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [_y_axis(low, high, log=log, percent=percent)]
    parts.append(_x_axis(times, x))
    for s in series:
        parts.append(f'<path class="line {s.css}" d="{_path(x, to_y(s.y))}"><title>{escape(s.label)}</title></path>')
    return _svg(parts, title)


def reliability(series: Sequence[Series], levels: Sequence[float], *, title: str) -> str:
    """How often the outcome fell below each quantile against how often it should: the diagonal is perfect."""
    size, edge = 260, 34

    def place(v: np.ndarray | float) -> np.ndarray:
        return edge + np.asarray(v) * (size - edge - 10)

    parts = [f'<path class="axis" d="M{place(0):.1f},{size - place(0):.1f}L{place(1):.1f},{size - place(1):.1f}"/>']
    for v in (0.0, 0.5, 1.0):
        parts.append(f'<text x="{place(v):.1f}" y="{size - 12}" class="tick" text-anchor="middle">{v:g}</text>')
        parts.append(f'<text x="{edge - 6}" y="{size - place(v) + 4:.1f}" class="tick" text-anchor="end">{v:g}</text>')
    for s in series:
        x, y = place(np.asarray(levels)), size - place(s.y)
        parts.append(f'<path class="line {s.css}" d="{_path(x, y)}"><title>{escape(s.label)}</title></path>')
        parts.extend(
            f'<circle class="dot {s.css}" cx="{a:.1f}" cy="{b:.1f}" r="2.6"/>' for a, b in zip(x, y, strict=True) if np.isfinite(b)
        )
    return f'<svg viewBox="0 0 {size} {size}" class="square" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def intervals(rows: Sequence[tuple[str, str, float, float, float]], *, percent: bool = True, title: str) -> str:
    """A dot and its 95% interval a row, with zero marked. Rows are (label, css, value, low, high), as fractions where in percent."""
    height = 26 * len(rows) + 30
    finite = np.array([v for row in rows for v in row[2:] if np.isfinite(v)] + [0.0])
    low, high = _range(finite)
    label_width = 150

    def place(v: float) -> float:
        return label_width + (v - low) / (high - low) * (WIDTH - label_width - RIGHT)

    parts = [f'<path class="zero" d="M{place(0):.1f},4V{height - 24}"/>']
    for tick in _ticks(low, high):
        parts.append(f'<text x="{place(tick):.1f}" y="{height - 8}" class="tick" text-anchor="middle">{_label(tick, percent)}</text>')
    for i, (label, css, value, lo, hi) in enumerate(rows):
        y = 18 + 26 * i
        parts.append(f'<text x="{label_width - 10}" y="{y + 4}" class="label" text-anchor="end">{escape(label)}</text>')
        if np.isfinite(lo) and np.isfinite(hi):
            parts.append(f'<path class="line {css}" d="M{place(lo):.1f},{y}H{place(hi):.1f}"/>')
        if np.isfinite(value):
            parts.append(f'<circle class="dot {css}" cx="{place(value):.1f}" cy="{y}" r="4.5"/>')
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def steps(labels: Sequence[str], series: Sequence[Series], *, title: str) -> str:
    """Lines over a few named steps, in percent, with zero marked: what a result becomes as the terms get harder."""
    low, high = _range(np.concatenate([s.y for s in series] + [np.zeros(1)]))
    x = np.linspace(LEFT + 60, WIDTH - RIGHT - 60, num=len(labels))

    def to_y(y: np.ndarray) -> np.ndarray:
        return TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [_y_axis(low, high, log=False, percent=True)]
    parts.append(f'<path class="zero" d="M{LEFT},{to_y(np.zeros(1))[0]:.1f}H{WIDTH - RIGHT}"/>')
    for place, label in zip(x, labels, strict=True):
        parts.append(f'<text x="{place:.1f}" y="{HEIGHT - 8}" class="tick" text-anchor="middle">{escape(label)}</text>')
    for s in series:
        parts.append(f'<path class="line {s.css}" d="{_path(x, to_y(s.y))}"><title>{escape(s.label)}</title></path>')
        parts.extend(f'<circle class="dot {s.css}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in zip(x, to_y(s.y), strict=True))
    return _svg(parts, title)


def strip(rows: Sequence[tuple[str, str, np.ndarray]], *, title: str) -> str:
    """A dot for each value of a distribution and a bar at its median, a row each: (label, css, values). Zero is marked."""
    height, label_width = 34 * len(rows) + 30, 150
    low, high = _range(np.concatenate([values for _, _, values in rows] + [np.zeros(1)]))

    def place(v: float) -> float:
        return label_width + (v - low) / (high - low) * (WIDTH - label_width - RIGHT)

    parts = [f'<path class="zero" d="M{place(0):.1f},4V{height - 24}"/>']
    for tick in _ticks(low, high):
        parts.append(f'<text x="{place(tick):.1f}" y="{height - 8}" class="tick" text-anchor="middle">{tick:g}</text>')
    for i, (label, css, values) in enumerate(rows):
        y, middle = 20 + 34 * i, place(float(np.median(values)))
        parts.append(f'<text x="{label_width - 10}" y="{y + 4}" class="label" text-anchor="end">{escape(label)}</text>')
        parts.extend(f'<circle class="dot {css}" cx="{place(v):.1f}" cy="{y}" r="4" fill-opacity=".55"/>' for v in values)
        parts.append(f'<path class="line {css}" d="M{middle:.1f},{y - 11}V{y + 11}"/>')
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def stacked(times: Sequence[str], layers: Sequence[Series], *, title: str) -> str:
    """Stacked fractions of equity over time (what was held): longs upwards from zero, shorts downwards."""
    x = np.linspace(LEFT, WIDTH - RIGHT, num=len(times))
    held = np.stack([s.y for s in layers])
    longs, shorts = np.maximum(held, 0.0), np.minimum(held, 0.0)
    low, high = min(0.0, float(shorts.sum(axis=0).min())), max(1.0, float(longs.sum(axis=0).max()))

    def to_y(y: np.ndarray) -> np.ndarray:
        return TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [_y_axis(low, high, log=False, percent=True)]
    for side in (longs, shorts):
        for s, y, top in zip(layers, side, side.cumsum(axis=0), strict=True):
            if y.any():
                upper, lower = to_y(top), to_y(top - y)
                outline = "L".join(f"{a:.1f},{b:.1f}" for a, b in [*zip(x, upper, strict=True), *zip(x[::-1], lower[::-1], strict=True)])
                parts.append(f'<path class="area {s.css}" d="M{outline}Z"><title>{escape(s.label)}</title></path>')
    if shorts.any():
        parts.append(f'<path class="zero" d="M{LEFT},{to_y(np.zeros(1))[0]:.1f}H{WIDTH - RIGHT}"/>')
    parts.append(_x_axis(times, x))
    return _svg(parts, title)


def _label(tick: float, percent: bool) -> str:
    return f"{tick:.0%}" if percent else f"{tick:g}"


def _svg(parts: Sequence[str], title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers inside the range (1, 2 or 5 times a power of ten apart)."""
    raw = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * min((1.0, 2.0, 5.0, 10.0), key=lambda m: abs(m * power - raw))
    return [round(float(v), 12) + 0.0 for v in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step]


def _y_axis(low: float, high: float, *, log: bool, percent: bool) -> str:
    parts = []
    if log:
        grid = [(np.log(v), f"{v:g}") for v in _ticks(float(np.exp(low)), float(np.exp(high))) if v > 0]
    else:
        grid = [(v, f"{v:.0%}" if percent else f"{v:g}") for v in _ticks(low, high)]
    for value, text in grid:
        y = TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)
        parts.append(f'<path class="grid" d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" class="tick" text-anchor="end">{text}</text>')
    return "".join(parts)


def _x_axis(times: Sequence[str], x: np.ndarray) -> str:
    """Six months; the last is written to the left of its place, so that it stays on the page."""
    shown = sorted({int(i) for i in np.linspace(0, len(times) - 1, num=min(6, len(times)))})
    anchors = ["middle"] * (len(shown) - 1) + ["end"]
    return "".join(
        f'<text x="{x[i]:.1f}" y="{HEIGHT - 8}" class="tick" text-anchor="{anchor}">{escape(times[i][:7])}</text>'
        for i, anchor in zip(shown, anchors, strict=True)
    )


def _path(x: np.ndarray, y: np.ndarray) -> str:
    parts, pen = [], "M"
    for a, b in zip(x, y, strict=True):
        if np.isfinite(b):
            parts.append(f"{pen}{a:.1f},{b:.1f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts)
