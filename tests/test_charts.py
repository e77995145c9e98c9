"""Charts by hand: what is drawn is where the numbers say."""

from __future__ import annotations

import re

import numpy as np

from rlaif_ray.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Series, stacked

DAYS = ["2024-01-01", "2024-02-01"]


def areas(svg: str) -> dict[str, list[tuple[float, float]]]:
    """By label, the corners of its area: the edge away from zero from left to right, and back along the other."""
    drawn = re.findall(r'<path class="area c\d" d="M([^"]*)Z"><title>([^<]*)</title>', svg)
    return {label: [(float(x), float(y)) for x, y in (corner.split(",") for corner in d.split("L"))] for d, label in drawn}


def at(fraction: float, low: float, high: float) -> float:
    return round(TOP + (high - fraction) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)


def test_longs_are_stacked_from_zero_to_all_of_equity() -> None:
    svg = stacked(DAYS, [Series("A", "c0", np.array([0.5, 0.2])), Series("B", "c1", np.array([0.25, 0.4]))], title="held")
    left, right = float(LEFT), float(WIDTH - RIGHT)
    low, quarter = at(0, 0, 1), at(0.75, 0, 1)
    assert areas(svg)["A"] == [(left, at(0.5, 0, 1)), (right, at(0.2, 0, 1)), (right, low), (left, low)]
    assert areas(svg)["B"] == [(left, quarter), (right, at(0.6, 0, 1)), (right, at(0.2, 0, 1)), (left, at(0.5, 0, 1))]
    assert 'class="zero"' not in svg and "100%" in svg


def test_shorts_are_stacked_below_zero_and_both_sides_stay_on_the_page() -> None:
    """A is short, B long, C both in turn; the axis runs from the largest short side to the largest long one."""
    layers = [Series("A", "c0", np.array([-0.5, -0.4])), Series("B", "c1", np.array([1.5, 1.0])), Series("C", "c2", np.array([-0.2, 0.3]))]
    svg, low, high = stacked(DAYS, layers, title="held"), -0.7, 1.5
    drawn = areas(svg)
    assert [y for _, y in drawn["A"]] == [at(-0.5, low, high), at(-0.4, low, high), at(0, low, high), at(0, low, high)]
    assert [y for _, y in drawn["B"]] == [at(1.5, low, high), at(1.0, low, high), at(0, low, high), at(0, low, high)]
    corners = re.findall(r'<path class="area c2" d="M([^"]*)Z">', svg)
    assert len(corners) == 2  # above what B holds at the end, and below what A holds at the start
    assert f"{LEFT:.1f},{at(-0.7, low, high)}" in corners[1] and f"{WIDTH - RIGHT:.1f},{at(1.3, low, high)}" in corners[0]
    assert f'class="zero" d="M{LEFT},{at(0, low, high)}H' in svg
    assert all(TOP <= y <= HEIGHT - BOTTOM for area in drawn.values() for _, y in area)
