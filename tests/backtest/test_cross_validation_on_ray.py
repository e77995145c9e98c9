"""Combinatorial purged cross-validation on Ray: the same on two nodes as on one machine, and no path knows its own test bars."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray

from rlaif_ray.backtest.cross_validation_on_ray import Paths, cross_validate
from rlaif_ray.config import ForecastSection, Trees
from rlaif_ray.core import Cube
from rlaif_ray.errors import DataError
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.terms import Terms
from rlaif_ray.portfolio.limits import Limits
from tests.laws import random_cube

ROWS = slice(20, 340)
TWO_NODES = """
import sys
import numpy as np
import ray
from ray.cluster_utils import Cluster
from tests.backtest.test_cross_validation_on_ray import market, paths

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100_000_000})
cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
cluster.wait_for_nodes(timeout=120)
ray.init(address=cluster.address, log_to_driver=False)
assert len([node for node in ray.nodes() if node["Alive"]]) == 2
found = paths(market())
np.savez(sys.argv[1], optimiser=found.optimiser, equal_weight=found.equal_weight, times=found.times)
ray.shutdown()
cluster.shutdown()
"""


def market() -> Cube:
    return replace(random_cube(np.random.default_rng(0), rows=350, assets=4), bars_per_year=60.0)  # a "year" of 60 bars: few are needed


def paths(cube: Cube, rows: slice = ROWS, max_weight: float = 0.5) -> Paths:
    section = ForecastSection(horizons=(1, 4), levels=(0.1, 0.5, 0.9), trees=Trees(trees=10, min_rows=20))
    return cross_validate(
        ray.put(cube), rows, section, n_groups=4, n_test_groups=2, embargo=2, seed=3,
        terms=Terms(CostModel.of_bps(0.5, 1.0, 2.0), limits=Limits(max_weight=max_weight)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(ray_session: None) -> Paths:
    """On one machine."""
    return paths(market())


def test_every_path_is_the_whole_span_once(found: Paths) -> None:
    cube = market()
    assert found.optimiser.shape == (3, 320) and found.equal_weight.shape == (320,)  # C(4,2) * 2 / 4
    np.testing.assert_array_equal(found.times, cube.times[21:341])
    assert np.isfinite(found.optimiser).all()
    assert len({path.tobytes() for path in found.optimiser}) == 3


def test_what_comes_after_a_block_moves_only_those_who_learnt_from_it(found: Paths) -> None:
    """Equal weight learns nothing; of the optimisers of the first block, who were taught by the last one are others."""
    cube = market()
    features = cube.features.copy()
    features[270:] = np.random.default_rng(1).standard_normal(features[270:].shape, np.float32)
    other = paths(replace(cube, features=features))
    np.testing.assert_array_equal(found.equal_weight, other.equal_weight)
    same = [(a[:80] == b[:80]).all() for a, b in zip(found.optimiser, other.optimiser, strict=True)]
    assert sorted(same) == [False, False, True]  # (0, 3) are tested together once


def test_rows_that_cannot_be_filled_are_refused(ray_session: None) -> None:
    with pytest.raises(DataError, match="a fill needs the next bar"):
        paths(market(), slice(20, 350))


@pytest.mark.slow
def test_two_nodes_say_what_one_machine_says(found: Paths, tmp_path: Path) -> None:
    script = tmp_path / "two_nodes.py"
    script.write_text(TWO_NODES)
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "two.npz")], env=here, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "two.npz") as there:
        for name in ("optimiser", "equal_weight", "times"):
            np.testing.assert_array_equal(there[name], getattr(found, name))
