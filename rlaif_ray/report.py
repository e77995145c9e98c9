"""result.json -> one self-contained HTML page, and a one-screen summary for the terminal.

Nothing is computed here that is not in the result: a number on the page is a number in `result.json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from rlaif_ray import charts
from rlaif_ray.charts import Series
from rlaif_ray.runs import write_atomically

METRICS = (
    ("excess", "excess_annual_log_return", "percent"), ("beyond beta", "beta_neutral_excess", "percent"),
    ("Sharpe", "sharpe", "plain"), ("Sortino", "sortino", "plain"),
    ("Calmar", "calmar", "plain"), ("return a year", "annual_return", "percent"), ("max drawdown", "max_drawdown", "percent"),
    ("CVaR 95", "cvar_95", "percent"), ("hit rate", "hit_rate", "percent"), ("turnover a year", "turnover", "plain"),
    ("profit factor", "profit_factor", "plain"),
)  # fmt: skip
QUALITY_WORDS = {
    "gaps_filled": "missing bars filled (not tradable)", "gaps_left": "bars that others have and a symbol lacks",
    "halts": "bars that nobody could trade", "outliers": "outliers flagged",
    "duplicates_dropped": "identical duplicates dropped", "violations": "rows with inconsistent high or low",
    "ends_early": "symbols that end early", "quarantined": "rows set apart",
}  # fmt: skip


def render(result: Mapping[str, Any], path: Path, *, trials: int) -> Path:
    """Write the page; opens from disk, light and dark, wide and narrow.

    `trials` : distinct (config, test block) pairs that were ever tried on this data, this run's among them.
    """
    return write_page(path, "report.html.j2", **_context(result), trials=_tried(trials))


def write_page(path: Path, template: str, **said: Any) -> Path:
    """Fill one of the package's templates, all of which share one page, and write it whole or not at all."""
    environment = Environment(
        loader=PackageLoader("rlaif_ray", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    write_atomically(path, environment.get_template(template).render(said))
    return path


def _tried(trials: int) -> str:
    return f"Tried on this data so far: {trials} pairs of a configuration and a test block. No interval here is corrected for that."


def summary_text(result: Mapping[str, Any], *, trials: int) -> str:
    """One screen for a terminal: the verdict, the policies' table, and how much was tried on this data."""
    width = max(len(p) for p in result["policies"])
    lines = [subtitle(result), "", verdict(result)["headline"], verdict(result)["detail"], ""]
    lines.append(f"{'policy':<{width}}  {'excess a year':>24}  {'beyond beta':>24}  {'Sharpe':>22}  {'max drawdown':>12}  {'turnover':>8}")
    for name in ordered(result, result["policies"]):
        m = result["policies"][name]
        lines.append(
            f"{name:<{width}}  {span(m['excess_annual_log_return'], 'percent'):>24}  {span(m['beta_neutral_excess'], 'percent'):>24}  "
            f"{span(m['sharpe'], 'plain'):>22}  {number(m['max_drawdown']['value'], 'percent'):>12}  "
            f"{number(m['turnover']['value'], 'plain'):>8}"
        )
    return "\n".join([*lines, "", _tried(trials), *result["notes"]])


def verdict(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the run says about its policy: an edge is claimed only when the interval lies above zero."""
    name, scale = result["policy"], result["data"]["bars_per_year"]
    edge = result["edges"][name]
    value, low, high = (number(None if edge[k] is None else edge[k] * scale, "percent") for k in ("value", "low", "high"))
    does = "Edge: {} beats" if edge["claim"] else "No edge: {} does not beat"
    detail = f"Excess log return {value} a year, 95% interval {low} to {high}, on {_bars(result)}"
    headline = f"{does.format(name)} equal weight of the same names after costs."
    worth = edge["detectable_annual"]
    shown = "" if worth is None else f" {number(worth, 'percent')} a year would have shown four times in five."
    judge = " What else was tried is not counted here: rlaif validate brings it before the gate." if edge["claim"] else ""
    return {"claim": bool(edge["claim"]), "headline": headline, "detail": f"{detail} in {len(result['folds'])} folds.{shown}{judge}"}


def _bars(result: Mapping[str, Any]) -> str:
    count = result["edges"][result["policy"]]["n_effective"]
    worth = "" if count is None else f" (worth {count:.0f} independent ones)"
    return f"{result['test']['bars']} out-of-sample bars{worth}"


def _context(result: Mapping[str, Any]) -> dict[str, Any]:
    policies = ordered(result, result["policies"])
    css = {name: f"c{i % 10}" for i, name in enumerate(policies)}
    return {
        "title": "rlaif_ray: walk-forward report",
        "subtitle": subtitle(result),
        "verdict": verdict(result),
        "notes": result["notes"],
        "legend": [{"label": p, "css": css[p]} for p in policies],
        "config_hash": result["config_hash"], "data_version": result["data"]["data_version"], "seed": result["seed"],
        **_policy_tables(result, policies, css),
        **_curves(result, policies, css),
        **_folds(result, policies),
        **_forecasts(result),
        **_analysts(result),
        **_holdings(result),
        **_data(result),
    }  # fmt: skip


def _policy_tables(result: Mapping[str, Any], policies: Sequence[str], css: Mapping[str, str]) -> dict[str, Any]:
    scale = result["data"]["bars_per_year"]
    rows = []
    for p in policies:
        edge = result["edges"][p]
        rows.append((p, css[p], *(np.nan if edge[k] is None else edge[k] * scale for k in ("value", "low", "high"))))
    metric_rows = [
        {"name": p, "cells": [{"value": number(m[k]["value"], unit), "interval": _bounds(m[k], unit)} for _, k, unit in METRICS]}
        for p in policies
        for m in [result["policies"][p]]
    ]
    costs = [
        {
            "name": p, "invested": span(m["invested"], "percent"), "turnover": span(m["turnover"], "plain"),
            "drag": span(m["cost_drag"], "percent"), "trips": _tripped(result["trips"][p]),
        }
        for p in policies
        for m in [result["policies"][p]]
    ]
    traded = result["execution"]
    bps = traded["costs_bps"]
    sentence = (
        f"Decided at the close of a bar, filled at the {traded['fill'].replace('next_', 'next ')}. Each side of a trade pays "
        + " + ".join(f"{v:g} bps {k.replace('_', ' ')}" for k, v in bps.items())
        + f" = {sum(bps.values()):g} bps"
        + (f", and square-root impact of {traded['impact']['impact']:.3g} bar volatilities" if traded["impact"]["impact"] else "")
        + (f". Who is short pays {traded['borrow_bps_a_day']:g} bps a day for it" if traded["account"]["long_short"] else "")
        + f". No name is given more than {100 * traded['max_weight']:.3g}% of equity."
        + (" Each test block starts from cash, and so do its controls: none sees a fall across two." if len(result["folds"]) > 1 else "")
    )
    return {
        "edge_chart": charts.intervals(rows, title="Excess log return a year over equal weight"),
        "metric_columns": [label for label, _, _ in METRICS], "metric_rows": metric_rows, "cost_rows": costs, "cost_sentence": sentence,
    }  # fmt: skip


def _tripped(trips: Mapping[str, Mapping[str, Any]]) -> str:
    """Which risk controls acted, how often, and when."""
    told = []
    for control, t in trips.items():
        when = t["first"] if t["count"] == 1 else f"{t['count']} times, {t['first']} to {t['last']}"
        largest, limit = (number(t[k], "plain" if control == "turbulence" else "percent") for k in ("largest", "limit"))
        told.append(f"{control.replace('_', ' ')}: {when} (up to {largest}, limit {limit})")
    return "; ".join(told)


def _curves(result: Mapping[str, Any], policies: Sequence[str], css: Mapping[str, str]) -> dict[str, Any]:
    times = result["curves"]["times"]
    equity = {p: np.array(result["curves"]["equity"][p], float) for p in reversed(policies)}  # the learned one is drawn last, on top
    grown = [Series(p, css[p], e) for p, e in equity.items()]
    fallen = [Series(p, css[p], e / np.maximum.accumulate(np.maximum(e, 1.0)) - 1.0) for p, e in equity.items()]
    return {
        "equity_chart": charts.time_lines(times, grown, log=True, title="Growth of 1, out of sample"),
        "drawdown_chart": charts.time_lines(times, fallen, percent=True, title="Drawdown"),
    }


def _folds(result: Mapping[str, Any], policies: Sequence[str]) -> dict[str, Any]:
    rows = []
    for fold in result["folds"]:
        figures = [fold["policies"][p] for p in policies]
        cells = [f"{number(f['total_return'], 'percent')} / {number(f['sharpe'], 'plain')}" for f in figures]
        rows.append({"name": fold["name"], "cells": cells, **{k: " to ".join(fold[k]) for k in ("train", "validation", "test")}})
    return {"fold_rows": rows, "fold_policies": policies}


def _forecasts(result: Mapping[str, Any]) -> dict[str, Any]:
    """Calibration of every forecaster over the test blocks; the chart shows the first horizon."""
    rows, series, levels = [], [], []
    for i, (name, model) in enumerate(result["forecasts"].items()):
        for horizon, c in model["horizons"].items():
            target = model["target"].replace("_", " ")
            figures = [
                number(c.get(key), unit) for key, unit in (("interval_80", "percent"), ("mae_to_naive", "plain3"), ("qlike", "plain3"))
            ]
            rows.append([name, target, horizon, number(c["pinball"], "small"), *_standing(c), *figures, f"{c['count']:,}"])
        for c in list(model["horizons"].values())[:1]:
            levels = [float(level) for level in c["coverage"]]
            series.append(Series(name, f"c{i}", np.array(list(c["coverage"].values()), float)))
    chart = charts.reliability(series, levels, title="Reliability of the quantiles") if series else ""
    legend = [{"label": s.label, "css": s.css} for s in series]
    columns = [
        "model", "target", "bars ahead", "pinball loss", "loss over the first's", "may be best", "80% band holds", "error / no change",
        "QLIKE", "n",
    ]  # fmt: skip
    return {"forecast_rows": rows, "forecast_columns": columns, "reliability_chart": chart, "forecast_legend": legend}


def _standing(scores: Mapping[str, Any]) -> list[str]:
    """Loss against the first forecaster of the same target, and whether the confidence set holds it."""
    if "may_be_best" not in scores:
        return ["", ""]
    over, may = scores["loss_over_first"], "yes" if scores["may_be_best"] else "no"
    return ["" if over is None else span(over, "percent"), f"{may} (p {scores['may_be_best_p_value']:.2f})"]


def _analysts(result: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for name, a in result["analysts"].items():
        figures = [span(a["score"], "small"), span(a["hit_rate"], "percent")]
        rows.append([name, f"{a['n_opinions']:,}", f"{a['n_abstentions']:,}", *figures, a["reason"] or ""])
    columns = ["analyst", "opinions", "abstentions", "score", "right side", "an abstention's reason"]
    lines = [_judge_line(name, record) for name, record in result["feedback"].items()]
    return {"analyst_rows": rows, "analyst_columns": columns, "feedback_lines": lines}


def _judge_line(fold: str, record: Mapping[str, Any]) -> str:
    """One sentence on the judge that moved the manager in a fold's last window."""
    last = record["windows"][-1]
    fair = last["held_out"]
    if fair is None or fair["accuracy"] is None:
        why = last.get("reason", "too few to hold any out")
        return f"Fold {fold}: {last['n_pairs']:,} judged pairs, {why}; the manager keeps equal weights."
    right, author, gain = span(fair["accuracy"], "percent"), span(fair["author_average"], "percent"), record["gain_over_equal_weights"]
    said = f"Fold {fold}: reward model over {last['n_pairs']:,} judged pairs; right on {right} of {fair['n_pairs']:,} held-out pairs"
    return f"{said} (author average: {author}). The manager's score over equal weights: {span(gain, 'small')}."


def _holdings(result: Mapping[str, Any]) -> dict[str, Any]:
    held = result["curves"]["weights"]
    weights = np.array(held["values"], float).reshape(len(result["curves"]["times"]), -1)
    order = np.argsort(-np.abs(weights).mean(axis=0), kind="stable")
    top, rest = order[:8], weights[:, order[8:]]
    layers = [Series(held["symbols"][j], f"c{k}", weights[:, j]) for k, j in enumerate(top)]
    # Longs and shorts of the others do not cancel: both are held.
    sides = (np.maximum(rest, 0.0), np.minimum(rest, 0.0)) if rest.any() else ()
    layers += [Series("all others", "c9", side.sum(axis=1)) for side in sides]
    decision = result["decision"]
    rows = [
        {
            "symbol": p["symbol"], "weight": number(p["target_weight"], "percent"),
            "p_up": number(next((v["p_up"] for v in p["votes"] if v["author"] == "manager"), None), "plain3"),
            "claims": " · ".join(c for v in p["votes"] if v["author"] != "manager" for c in v["claims"]),
        }
        for p in sorted(decision["predictions"], key=lambda p: -abs(p["target_weight"]))[:12]
    ]  # fmt: skip
    return {
        "holdings_chart": charts.stacked(result["curves"]["times"], layers, title=f"Weights held by {result['policy']}"),
        "holdings_legend": [{"label": s.label, "css": s.css} for s in layers[: len(top) + bool(sides)]],
        "decision_reason": f"Decision of {decision['model']} at {decision['as_of']}: {decision['reason']}", "decision_rows": rows,
    }  # fmt: skip


def _data(result: Mapping[str, Any]) -> dict[str, Any]:
    d = result["data"]
    lines = [
        f"{len(d['symbols'])} symbols, {d['rows']:,} rows, {d['first']} to {d['last']}, prices {d['price_kind'].replace('_', ' ')}, "
        f"{d['bars_per_year']:.1f} bars a year by the exchange calendar."
    ]
    if d["absent_features"]:
        lines.append(f"Absent because the source lacks their inputs: {', '.join(d['absent_features'])}.")
    counts = [f"{count:,} {QUALITY_WORDS[key]}" for key, count in d["quality"].items() if count]
    return {"data_lines": [*lines, *([f"Cleaning: {', '.join(counts)}."] if counts else [])]}


def subtitle(result: Mapping[str, Any]) -> str:
    d, tested = result["data"], result["test"]
    covered = f"{d['dataset']}: {len(d['symbols'])} symbols, {d['first']} to {d['last']}"
    return f"{covered}; {len(result['folds'])} folds tested {tested['from']} to {tested['to']}"


def ordered(result: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """The policy that the run is about first: it is drawn in the first colour."""
    return sorted(names, key=lambda n: n != result["policy"])


def number(value: float | None, unit: str) -> str:
    if value is None or not np.isfinite(value):
        return "n/a"
    return {"percent": f"{value:.1%}", "plain": f"{value:.2f}", "plain3": f"{value:.3f}", "small": f"{value:.5f}"}[unit]


def _bounds(m: Mapping[str, Any], unit: str) -> str:
    return "" if m["low"] is None else f"{number(m['low'], unit)} to {number(m['high'], unit)}"


def span(m: Mapping[str, Any], unit: str) -> str:
    bounds = _bounds(m, unit)
    return f"{number(m['value'], unit)} [{bounds}]" if bounds else number(m["value"], unit)
