"""Verdicts of the gate -> one self-contained page: who was promoted, why not, and what the result hangs on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlaif_ray import charts
from rlaif_ray.backtest.gate import LEVEL, Verdict
from rlaif_ray.charts import Series
from rlaif_ray.report import number, ordered, span, subtitle, write_page
from rlaif_ray.results import BENCHMARK

COLUMNS = (
    "policy", "verdict", "excess a year", "beyond beta", "p over equal weight", "p over the optimiser", "deflated Sharpe", "PBO",
    "could have shown", "independent bars",
)  # fmt: skip


def render(result: Mapping[str, Any], verdicts: Mapping[str, Verdict], path: Path, *, paths: Mapping[str, np.ndarray]) -> Path:
    """Write the page; opens from disk, light and dark, wide and narrow.

    `paths` are the (P,) annual Sharpe ratios of the optimiser's combinatorial cross-validation, by what they are of; empty
    where it was not run.
    """
    verdicts = {name: verdicts[name] for name in ordered(result, verdicts)}
    css = {name: f"c{i % 10}" for i, name in enumerate(verdicts)}
    promoted = [name for name, v in verdicts.items() if v.promote]
    first = next(iter(verdicts.values()))
    ladder = [Series(n, css[n], np.array(list(v.diagnostics.ladder.values()))) for n, v in verdicts.items()]
    states = [Series(n, css[n], np.array([r["added"] for r in v.diagnostics.regimes.values()])) for n, v in verdicts.items()]
    named = [f"{name} ({r['bars']} bars)" for name, r in first.diagnostics.regimes.items()]
    return write_page(
        path, "validation.html.j2", title="rlaif_ray: the gate", subtitle=subtitle(result),
        promoted=bool(promoted), headline=_headline(promoted), columns=COLUMNS, rows=[_row(n, v, result) for n, v in verdicts.items()],
        trials=f"{first.tests[0].trials} series tried, worth {first.diagnostics.effective_trials:.0f} independent ones; "
        f"a search without skill is promoted once in {round(1 / LEVEL)} at most.",
        legend=[{"label": n, "css": css[n]} for n in verdicts],
        ladder_chart=charts.steps([f"{bps} bps" for bps in first.diagnostics.ladder], ladder, title="Excess a year by cost of one side"),
        regime_chart=charts.steps(named, states, title="Excess a year that each state of the market added"),
        strip_chart=charts.strip([(k, "c0", v) for k, v in paths.items()], title="Sharpe ratios of the paths") if paths else None,
        veto_columns=["policy", *(v.name for v in first.vetoes)],
        veto_rows=[[n, *({"fired": x.fired, "seen": x.seen} for x in v.vetoes)] for n, v in verdicts.items()],
        reasons=[{"policy": n, "word": v.word, "said": "; ".join(v.reasons)} for n, v in verdicts.items()],
    )  # fmt: skip


def summary_text(result: Mapping[str, Any], verdicts: Mapping[str, Verdict]) -> str:
    """One screen for a terminal: a line a policy with what it is worth, then why each verdict."""
    table = [list(COLUMNS), *(_row(n, verdicts[n], result) for n in ordered(result, verdicts))]
    widths = [max(len(row[c]) for row in table) for c in range(len(COLUMNS))]
    shown = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]
    why = [f"{n:<{widths[0]}}  {verdicts[n].word}: {'; '.join(verdicts[n].reasons)}" for n in ordered(result, verdicts)]
    return "\n".join([_headline([n for n, v in verdicts.items() if v.promote]), "", *shown, "", *why])


def _headline(promoted: list[str]) -> str:
    return f"PROMOTE: {', '.join(promoted)}" if promoted else "REJECT: no policy of this run passes the gate."


def _row(name: str, verdict: Verdict, result: Mapping[str, Any]) -> list[str]:
    d, tests, earned = verdict.diagnostics, {t.benchmark: t for t in verdict.tests}, result["policies"][name]
    headline = [span(earned[k], "percent") for k in ("excess_annual_log_return", "beta_neutral_excess")]
    p_rule = next((_p(t.p_value) for of, t in tests.items() if of != BENCHMARK), "n/a")
    figures = [_p(tests[BENCHMARK].p_value), p_rule, number(d.deflated, "plain3"), number(d.pbo, "percent")]
    worth = [f"{number(d.detectable.annual_excess, 'percent')} a year", f"{d.detectable.n_effective:.0f} of {d.detectable.bars}"]
    return [name, verdict.word, *headline, *figures, *worth]


def _p(value: float) -> str:
    """As many resamples as there are cannot say that it is nothing."""
    return number(value, "plain3") if value >= 0.001 else "< 0.001"
