"""What the `rlaif` command does with the thesis policy: teach it, test it on short folds, and print the table. Heavy imports wait."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rlaif_ray.cli_lake import config_of_run

WORDS = {
    "sft": "SFT", "rft": "RFT", "shuffled_labels": "SFT, shuffled labels", "buy_and_hold": "buy and hold",
    "equal_weight": "equal weight each bar",
}  # fmt: skip
THESES = ("arm", "mean reward", "decision reward", "valid drawn, likeliest", "right class (most frequent)", "score, nats over climatology")
MONEY = (
    "arm", "excess a bar over buy and hold", "excess a bar over equal weight", "Sharpe", "turnover a year", "edge",
    "controls that began to bind",
)  # fmt: skip


def train(flags: dict[str, str], knobs: dict[str, str]) -> None:
    """A run of its own: ingest, features, then one stage a fold; the policies stay in its artefacts."""
    config = config_of_run(flags, knobs, {})
    from rlaif_ray.feedback.thesis_on_ray import train_thesis

    run, result = train_thesis(config, flags.get("run-dir"), flags.get("resume"))
    folder = run.path.resolve()  # in full: a submitted job runs in a folder that nobody would guess
    if "json" in flags:
        # Standard output is then result.json and nothing else, so that it can be piped.
        sys.stdout.write((folder / "result.json").read_text())
        print(f"run: {folder}", file=sys.stderr)
        return
    print(summary_text(result, trials=json.loads((folder / "verdict.json").read_text())["trials"]))
    print(f"\nrun: {folder}")


def summary_text(result: Mapping[str, Any], *, trials: int) -> str:
    """One screen: what the theses saw, how they fared, what their positions earned, fold by fold, and what was tried."""
    arms = result["arms"]
    theses = [_theses(name, arm) for name, arm in arms.items() if "reward" in arm]
    money = [_money(name, arm, result["trips"][name]) for name, arm in arms.items()]
    return "\n".join([
        *_title(result), "", *_table(THESES, theses), "", *_table(MONEY, money), "", *_table(*_by_fold(result)), "",
        *_findings(result), *result["notes"], f"{trials} series were tried on these bars.",
    ])  # fmt: skip


def _title(result: Mapping[str, Any]) -> list[str]:
    data, thesis, features, test = result["data"], result["thesis"], result["features"], result["test"]
    planted = thesis["planted_insider"]
    seen = f"{features['subset']}: {', '.join(features['seen'])}"
    if planted is not None:
        seen += f"; f_insider is PLANTED, with a coefficient of {planted:g}"
    missing = f"; missing and so masked: {', '.join(features['missing'])}" if features["missing"] else ""
    size = f"{thesis['folds']} folds of {thesis['train_bars']} bars to learn from and {thesis['test_bars']} to test on"
    span = f"{test['from']} to {test['to']}; {thesis['horizon_bars']} bars ahead"
    return [f"Theses on {len(data['symbols'])} symbols of {result['source']}, {size}, {span}", seen + missing]


def _theses(name: str, arm: Mapping[str, Any]) -> list[str]:
    return [
        WORDS[name], _span(arm["reward"]), _span(arm["decision"]), f"{arm['validity']:.1%}, {arm['valid_likeliest']:.1%}",
        f"{_span(arm['accuracy'], '.1%')} ({arm['accuracy_of_most_frequent']:.1%})", _span(arm["score"], ".4f"),
    ]  # fmt: skip


def _money(name: str, arm: Mapping[str, Any], trips: Mapping[str, Any]) -> list[str]:
    bound = ", ".join(f"{t['count']} x {control.replace('_', ' ')}" for control, t in trips.items())
    return [
        WORDS[name], _span(arm["excess_log_return"], "bp"), _span(arm["over_equal_weight"], "bp"), _span(arm["sharpe"], ".2f"),
        f"{arm['turnover']['value']:.1f}", "EDGE" if arm["edge"] else "no edge", bound or "-",
    ]  # fmt: skip


def _by_fold(result: Mapping[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    """Returns of all arms and, in brackets, mean rewards of those that write theses."""
    names = list(result["arms"])
    rows = []
    for fold in result["folds"]:
        cells = []
        for name in names:
            reward = fold["arms"].get(name)
            cells.append(f"{fold['total_return'][name]:.1%}" + (f" ({reward['reward']['mean']:.3f})" if reward else ""))
        rows.append([fold["name"], f"{fold['test'][0]} to {fold['test'][1]}", *cells])
    return ("fold", "tested on", *(f"{WORDS[n]}: return" + " (reward)" * ("reward" in result["arms"][n]) for n in names)), rows


def _findings(result: Mapping[str, Any]) -> list[str]:
    said = []
    if (gap := result["rft_over_sft"]) is not None:
        reward, decision = gap["reward"], gap["decision"]
        p = "no test" if reward["p_value"] is None else f"p {reward['p_value']:.2g}"
        said.append(f"RFT over SFT, on the same theses' days: reward {_span(reward)}, {p}; of it by decisions {_span(decision)}.")
    ratios = [fold["arms"]["sft"]["learnt"]["second_over_last"]["steps"] for fold in result["folds"]]
    if None not in ratios:
        said.append(f"SFT: loss of the second epoch over the last one's, fold by fold: {', '.join(f'{x:.3f}' for x in ratios)}.")
    claimed = [WORDS[name] for name, arm in result["arms"].items() if arm["edge"]]
    said.append(f"An edge over equal weight is claimed for: {', '.join(claimed)}." if claimed else "No edge over equal weight is claimed.")
    said.append("Who learns shuffled labels takes sides by chance; where there is a signal, such a side earns or loses by chance too.")
    return said


def _span(m: Mapping[str, Any], unit: str = ".3f") -> str:
    """A value with its interval, if it has one."""
    found = (m["mean"] if "mean" in m else m["value"], m["low"], m["high"])
    value, low, high = ("" if x is None or x != x else f"{1e4 * x:.1f} bp" if unit == "bp" else format(x, unit) for x in found)
    return f"{value} [{low}, {high}]" if low and high else value or "-"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    width = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)).rstrip() for row in (columns, *rows)]
