"""The result of the loop -> one self-contained page, and one screen for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlaif_ray import charts
from rlaif_ray.improve_result import ARMS, CHALLENGER, EQUAL, OFFICE, TRACK_RECORD
from rlaif_ray.report import number, span, write_page

WORDS = {OFFICE: "in office", CHALLENGER: "reward model", TRACK_RECORD: "track record", EQUAL: "equal weights"}
OVERALL = ("weighed by", "judged", "abstained", "score", "right side", "rank IC a date", "excess Sharpe", "excess a year", "cost a year")
TURNS = ("turn", "learns until", "block", "pairs", "right held out", "gain over office", "p", "may spend", "in office")


def render(result: Mapping[str, Any], path: Path, *, trials: int) -> Path:
    """Write the page; opens from disk, light and dark, wide and narrow."""
    css = {arm: f"c{i}" for i, arm in enumerate(ARMS)}
    found = {arm: result["overall"][arm]["score"] for arm in ARMS}
    scores = [(WORDS[a], css[a], _nan(s["value"]), _nan(s["low"]), _nan(s["high"])) for a, s in found.items()]
    return write_page(
        path, "improve.html.j2", title="rlaif_ray: the loop that improves the desk", subtitle=_subtitle(result),
        desk=_desk(result), headline=headline(result),
        better=_better(result), gains=_gains(result), trials=f"{trials} series were tried on these bars, by this run and others.",
        score_chart=charts.intervals(scores, title="Score over the climatological forecast, nats an opinion", percent=False),
        overall_columns=OVERALL, overall_rows=_arms(result["overall"]), turn_columns=TURNS, turn_rows=_turns(result),
        arm_columns=("turn", *OVERALL), arm_rows=[[str(t["cycle"]), *row] for t in result["cycles"] for row in _arms(t["arms"])],
        judges=[{"turn": t["cycle"], "said": _judge(t)} for t in result["cycles"]], notes=result["notes"],
        config_hash=result["config_hash"], data_version=result["data"]["data_version"], seed=result["seed"],
    )  # fmt: skip


def summary_text(result: Mapping[str, Any], *, trials: int) -> str:
    """One screen: what came of it, the arms over all blocks, and every turn."""
    parts = [headline(result), "", *_table(OVERALL, _arms(result["overall"])), "", *_table(TURNS, _turns(result)), ""]
    return "\n".join([*parts, *_gains(result), f"{trials} series were tried on these bars."])


def headline(result: Mapping[str, Any]) -> str:
    """Whether the loop made the desk better, in one sentence."""
    kept, turns = [t["cycle"] for t in result["cycles"] if t["challenge"]["kept"]], len(result["cycles"])
    gain = result["gains"][f"{OFFICE} over {EQUAL}"]
    if not kept:
        return f"NO BETTER: in {turns} turns no challenger was better than the judge in office; equal weights stay."
    word = "BETTER" if _better(result) else "KEPT, NOT PROVEN"
    when = f"kept in turn {', '.join(map(str, kept))} of {turns}"
    return f"{word}: {when}; over all blocks the judge in office gained {span(gain, 'small')} nats over equal weights."


def _better(result: Mapping[str, Any]) -> bool:
    low = result["gains"][f"{OFFICE} over {EQUAL}"]["low"]
    return low is not None and bool(low > 0)


def _gains(result: Mapping[str, Any]) -> list[str]:
    words = {f"{a} over {b}": f"{WORDS[a]} over {WORDS[b]}" for a in ARMS for b in ARMS}
    return [f"{words[name]}: {span(gain, 'small')} nats an opinion" for name, gain in result["gains"].items()]


def _arms(found: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for arm in ARMS:
        a = found[arm]
        figures = [span(a["score"], "small"), span(a["hit_rate"], "percent"), span(a["rank_ic"], "plain3")]
        earned = [span(a["excess_sharpe"], "plain"), span(a["excess_annual_log_return"], "percent")]
        earned.append(number(a["cost_drag"]["value"], "percent"))
        rows.append([WORDS[arm], f"{a['n_judged']:,}", f"{a['n_abstained']:,}", *figures, *earned])
    return rows


def _turns(result: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for t in result["cycles"]:
        judge, tested = t["judge"], t["challenge"]
        fair = judge["held_out"] and judge["held_out"]["accuracy"]
        p_value = "n/a" if tested["p_value"] is None else "< 0.001" if tested["p_value"] < 0.001 else f"{tested['p_value']:.3f}"
        figures = [f"{judge['n_pairs']:,}", span(fair, "percent") if fair else "n/a", span(tested["gain"], "small"), p_value]
        rows.append([
            str(t["cycle"]), t["learn"][1], " to ".join(t["block"]), *figures, f"{tested['alpha']:.4f}",
            t["office"],
        ])  # fmt: skip
    return rows


def _judge(turn: Mapping[str, Any]) -> str:
    """Why a challenger was kept or not, how it did beside those that see less, and what its pairs could have shown."""
    judge, fair = turn["judge"], turn["judge"]["held_out"]
    said = [turn["challenge"]["reason"], judge["reason"]]
    if fair and fair["accuracy"]:
        less = {**{f"{name} alone": found["accuracy"] for name, found in fair["beside"].items()}, "author average": fair["author_average"]}
        right = ", ".join(f"{name} {number(x['value'], 'percent')}" for name, x in less.items())
        worth = number(fair["by_margin"]["value"], "percent")
        ours, off = number(fair["accuracy"]["value"], "percent"), number(fair["calibration"]["expected_error"], "percent")
        said += [f"right held out on {ours} (weighed by margin {worth}; {right}), its probabilities off by {off}", fair["power"]["said"]]
    return "; ".join(filter(None, said))


def _subtitle(result: Mapping[str, Any]) -> str:
    d, tested = result["data"], result["test"]
    covered = f"{d['dataset']}: {len(d['symbols'])} symbols, {d['first']} to {d['last']}"
    return f"{covered}; {len(result['cycles'])} turns, judged {tested['from']} to {tested['to']}"


def _desk(result: Mapping[str, Any]) -> str:
    """On which terms, in one sentence."""
    d, improve, costs = result["desk"], result["improve"], result["execution"]["costs_bps"]
    asked = f"{', '.join(d['voices'])}; an opinion over {d['horizon_bars']} bars every {d['every_bars']}"
    weighed = f"compared by {d['metric']}, weighed by {d['members']} {d['size']} networks that see {', '.join(d['sees'])}"
    bar = "" if d["bar"] is None else f", heard above a bar of {d['bar']:g}"
    online = ", learning inside the blocks" if improve["online"] else ""
    terms = f"Costs of {sum(costs.values()):g} bps a side; {improve['alpha']:g} to spend in all turns."
    return f"The desk: {asked}; {weighed}{bar}{online}. {terms}"


def _table(head: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    table = [list(head), *rows]
    widths = [max(len(row[c]) for row in table) for c in range(len(head))]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]


def _nan(value: float | None) -> float:
    return np.nan if value is None else value
