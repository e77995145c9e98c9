"""The reward model against bare torch: `python -m benchmarks.feedback_reward [--quick] [--json]`.

Scoring: from opinions and contexts to an ensemble's mean and lower bounds, against the bare loop over the same networks and
batches, whose inputs lie ready and which does nothing with what comes out. Fitting: all members at once, question by question,
against one torch network after the other over single pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.rows import Row, in_turn, main
from rlaif_ray.core import OpinionTable
from rlaif_ray.feedback.context import CONTEXT
from rlaif_ray.feedback.preferences import PairTable, pairs
from rlaif_ray.feedback.reward_model import RewardModel, Settings
from rlaif_ray.feedback.reward_network import SIZES
from rlaif_ray.feedback.reward_questions import drawn_dates, member_seed
from tests.skill import closed

AUTHORS = tuple("ABCDE")


def rows(quick: bool) -> list[Row]:
    """Opinions scored a second, and seconds to fit an ensemble of five."""
    torch.set_num_threads(1)
    return [*_scoring(quick), _fitting(quick)]


def _desk(dates: int, names: int) -> tuple[np.ndarray, OpinionTable, PairTable]:
    """Five authors on a made market, of whom the first has seen something of what will come."""
    rng = np.random.default_rng(0)
    p_up = rng.uniform(0.35, 0.65, (dates, names, len(AUTHORS)))
    moments = np.datetime64("2000-01-03T21:00", "us") + np.timedelta64(5, "D") * np.arange(dates)
    opinions = OpinionTable(moments, tuple(f"S{i}" for i in range(names)), AUTHORS, p_up, 5)
    residual = 0.01 * (rng.standard_normal((dates, names)) + 10.0 * (p_up[..., 0] - 0.5))
    table = pairs(closed(opinions, residual), tie=0.01)
    return rng.standard_normal((dates, names, len(CONTEXT))), opinions, table


def _scoring(quick: bool) -> list[Row]:
    rows = []
    for size in ("tiny", "small"):
        dates = (200 if quick else 1000) // (10 if size == "small" and not quick else 1)
        context, opinions, table = _desk(dates, 100)
        model = RewardModel(Settings(AUTHORS, CONTEXT, size=size, epochs=1)).fit(context, opinions, table.take(table.date < 20))
        flat = model._inputs(context.reshape(-1, context.shape[-1]), opinions.p_up.reshape(-1, len(AUTHORS)), None)
        x = torch.from_numpy(flat.reshape(opinions.p_up.size, -1))
        weights = {name: torch.from_numpy(value) for name, value in model._fitted().items()}

        def ours(model: RewardModel = model, context: np.ndarray = context, opinions: OpinionTable = opinions) -> Any:
            return model.rewards(context, opinions.p_up)

        def bare(x: torch.Tensor = x, weights: dict[str, torch.Tensor] = weights, size: str = size) -> torch.Tensor:
            return _bare_scores(x, weights, SIZES[size].rows)

        apart = np.abs(ours().mean.reshape(-1) - bare().numpy().mean(axis=0)).max()
        assert apart < 1e-5, f"the model and the bare loop differ by {apart}"
        seconds, theirs = in_turn(ours, bare)
        count = opinions.p_up.size
        rows.append(Row(
            f"rewards of {count:,} opinions, {size}, 5 members", count / seconds, "bare torch loop, inputs ready", count / theirs,
            theirs / seconds, "opinions/s", 0.9, f"One thread, batches of {SIZES[size].rows}. Largest difference {apart:.0e}.",
        ))  # fmt: skip
    return rows


def _bare_scores(x: torch.Tensor, weights: dict[str, torch.Tensor], rows: int) -> torch.Tensor:
    """(M,N) of inputs (N,D): what anyone would write for stacked members."""
    layers = sum(name.startswith("weight") for name in weights)
    members = len(weights["head"])
    out = []
    with torch.inference_mode():
        for part in x.split(rows):
            hidden = part.expand(members, *part.shape)
            for layer in range(layers):
                hidden = torch.relu(torch.baddbmm(weights[f"bias{layer}"][:, None], hidden, weights[f"weight{layer}"]))
            out.append(torch.baddbmm(weights["head_bias"][:, None], hidden, weights["head"])[..., 0])
        return torch.cat(out, dim=1)


def _fitting(quick: bool) -> Row:
    context, opinions, table = _desk(100 if quick else 400, 10)
    s = Settings(AUTHORS, CONTEXT, epochs=3 if quick else 10)
    model = RewardModel(s)

    def ours() -> RewardModel:
        return model.fit(context, opinions, table)

    def apart() -> list[torch.nn.Module]:
        return [_bare_fit(model, context, opinions, table, member) for member in range(s.members)]

    ours()
    at = np.arange(20), np.zeros(20, int)
    x = torch.from_numpy(model._inputs(context[at], opinions.p_up[at], None)).flatten(0, 1)
    theirs = torch.stack([net(x)[:, 0] for net in apart()]).detach().numpy()
    alike = np.corrcoef(model.rewards(context[at], opinions.p_up[at]).mean.reshape(-1), theirs.mean(axis=0))[0, 1]
    assert alike > 0.9, f"rewards of the two ensembles correlate at {alike:.2f}"
    seconds, separate = in_turn(ours, apart)
    return Row(
        f"fit of 5 members on {len(table):,} pairs, tiny, {s.epochs} passes", seconds, "5 torch networks in turn, over single pairs",
        separate, separate / seconds, "s", None,
        f"One thread; as many updates for each. Theirs start elsewhere and mix pairs of questions; mean rewards correlate at {alike:.3f}.",
    )  # fmt: skip


def _bare_fit(model: RewardModel, context: np.ndarray, opinions: OpinionTable, table: PairTable, member: int) -> torch.nn.Module:
    """One network over single pairs, as one would write it, with the same inputs, weights and number of updates."""
    s = model.settings
    here, said = context[table.date, table.asset], opinions.p_up[table.date, table.asset]
    rows = torch.from_numpy(model._inputs(here, said, None))
    at = torch.arange(len(table))
    chosen, rejected = (rows[at, np.maximum(side, 0)] for side in (table.chosen, table.rejected))
    spoke = [torch.from_numpy(side >= 0) for side in (table.chosen, table.rejected)]
    weight = torch.from_numpy((drawn_dates(s.seed, member, table.opened_row // 5) * table.margin / table.margin.mean()).astype(np.float32))
    generator = torch.Generator().manual_seed(member_seed(s.seed, member))
    with torch.random.fork_rng():
        torch.manual_seed(member_seed(s.seed, member))
        net = torch.nn.Sequential(torch.nn.Linear(rows.shape[-1], 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    optimiser = torch.optim.AdamW(net.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay, fused=True)
    questions = len(np.unique(table.date * opinions.p_up.shape[1] + table.asset))
    batch = -(-len(table) * s.batch // questions)
    for _ in range(s.epochs):
        for index in torch.randperm(len(table), generator=generator).split(batch):
            better, worse = (torch.where(m[index], net(x[index])[:, 0], 0.0) for x, m in zip((chosen, rejected), spoke, strict=True))
            loss = (torch.nn.functional.softplus(worse - better) * weight[index]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return net


if __name__ == "__main__":
    main(rows)
