"""Served equals backtested, the future changes nothing, and every stage's word counts."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlaif_ray import cli
from rlaif_ray.agents.debate import MANAGER
from rlaif_ray.artefacts import FoldModels
from rlaif_ray.backtest.engine import run
from rlaif_ray.backtest.episodes import read_episode
from rlaif_ray.backtest.on_ray import read_decisions
from rlaif_ray.config import Config
from rlaif_ray.core import Abstention, Cube, Decision, Episode, Forecaster, ForecastTable, MarketView, Opinion
from rlaif_ray.errors import CheckpointError, DataError, MissingDataError
from rlaif_ray.plan import terms_of
from rlaif_ray.rl.direct_policy import DirectPolicy
from rlaif_ray.rl.projection import ActionSet
from rlaif_ray.serve.answer import moment_of
from rlaif_ray.serve.predictor import Predictor
from rlaif_ray.serve.schemas import Prediction, PredictRequest
from tests.laws import perturb_future

SAMPLE = 40  # decision bars of a fold


def at(predictor: Predictor, row: int) -> dt.datetime:
    return moment_of(predictor.cube.known_at[row])


def weights(said: Prediction) -> np.ndarray:
    return np.array([p.target_weight for p in said.predictions])


def walked(run: Path, fold: str) -> tuple[list[Decision], Episode]:
    (folder,) = (run / "stages" / "backtest" / f"fold={fold}").iterdir()
    return read_decisions(folder / "decisions.json"), read_episode(folder / "direct.npz")


def with_models(predictor: Predictor, fold: FoldModels) -> Predictor:
    return Predictor(predictor.config, predictor.dataset, predictor.cube, [fold])


# --- the same decision ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holdings_from", ["request", "run"])
def test_an_answer_at_a_decision_bar_is_the_decision_that_the_backtest_traded(
    tiny_run: Path, predictor: Predictor, holdings_from: str
) -> None:  # fmt: skip
    symbols = predictor.cube.symbols
    tested = [m for m in predictor.models if m.fold != "live"]
    assert tested
    for models in tested:
        decisions, episode = walked(tiny_run, models.fold)
        held = np.vstack([np.zeros(len(symbols)), episode.weights])  # a fold starts in cash
        for k in np.linspace(0, len(decisions) - 1, min(SAMPLE, len(decisions)), dtype=int):
            holdings = dict(zip(symbols, held[k].tolist(), strict=True)) if holdings_from == "request" else None
            said = predictor.predict(symbols, as_of=at(predictor, models.first_row + k), holdings=holdings)
            assert said.holdings_from == holdings_from and said.model == f"direct, fold {models.fold}"
            np.testing.assert_allclose(weights(said), [decisions[k].weights[s] for s in symbols], rtol=0, atol=1e-9)


BARS = 60  # of the walk below


class Levered:
    """Long what rose and short what fell, from what it holds as far as it may go."""

    name = "direct"

    def decide(self, view: MarketView) -> Decision:
        moved = np.sign(np.nan_to_num(np.diff(view.history().close[-2:], axis=0)[0]))
        weights = ActionSet(long_short=True).targets((moved + view.portfolio.weights)[None] / 2, view.listed[None])[0]
        return Decision(view.as_of, dict(zip(view.symbols, weights.tolist(), strict=True)), "as far as it may", self.name)


@pytest.fixture(scope="module")
def levered(predictor: Predictor) -> tuple[Predictor, Sequence[Decision], Episode]:
    """A run on a long-short account, and the walk of its policy through the first test block."""
    tree, models = predictor.config.model_dump(), replace(predictor.models[0], policy=Levered())
    tree["execution"] |= {"account": {"long_short": True}, "limits": {"max_weight": 1.0}}
    config, rows = Config.model_validate(tree), slice(models.first_row, models.first_row + BARS)
    terms = replace(terms_of(config, predictor.cube, predictor.dataset.sectors), fill=models.fill)
    episode, decisions = run(Levered(), predictor.cube, rows, terms)
    walked = replace(models, held=episode.weights, returns=episode.returns)
    return Predictor(config, predictor.dataset, predictor.cube, [walked]), decisions, episode


@pytest.mark.parametrize("holdings_from", ["request", "run"])
def test_short_or_levered_an_answer_is_the_decision_that_the_backtest_traded(
    levered: tuple[Predictor, Sequence[Decision], Episode], holdings_from: str
) -> None:  # fmt: skip
    served, decisions, episode = levered
    symbols, first = served.cube.symbols, served.models[0].first_row
    held = np.vstack([np.zeros(len(symbols)), episode.weights])
    assert (held < -0.1).any() and np.abs(held[:BARS]).sum(axis=1).max() > 2.001  # it drifts beyond what may be asked for
    for k in range(0, BARS, 3):
        holdings = dict(zip(symbols, held[k].tolist(), strict=True)) if holdings_from == "request" else None
        body = json.dumps({"symbols": symbols, "as_of": at(served, first + k).isoformat(), "holdings": holdings})
        asked = PredictRequest.model_validate_json(body)
        said = served.predict(asked.symbols, as_of=asked.as_of, holdings=asked.holdings)
        assert said.holdings_from == holdings_from
        np.testing.assert_allclose(weights(said), [decisions[k].weights[s] for s in symbols], rtol=0, atol=1e-9)
        np.testing.assert_allclose([p.held_weight for p in said.predictions], held[k], rtol=0, atol=1e-12)
        assert said.cash_weight == pytest.approx(1.0 - weights(said).sum(), abs=1e-9)


def test_what_no_account_of_the_run_can_hold_is_refused(
    predictor: Predictor, levered: tuple[Predictor, Sequence[Decision], Episode]
) -> None:  # fmt: skip
    served, (first, second, *_) = levered[0], predictor.cube.symbols
    with pytest.raises(DataError, match=rf"holdings of {first} are -0\.5; this run's account is long-only: expected numbers >= 0"):
        predictor.predict([first], holdings={first: -0.5})
    with pytest.raises(DataError, match=r"holdings add up to 1\.2; this run's account is long-only: .* at most 1"):
        predictor.predict([first], holdings={first: 0.6, second: 0.6})
    served.predict([first], holdings={first: 1.9, second: -1.4})
    with pytest.raises(DataError, match=r"holdings add up to 3\.4 without signs; expected at most 3\.333: beyond .*maintenance"):
        served.predict([first], holdings={first: 1.9, second: -1.5})


def test_live_goes_on_with_what_the_last_fold_held_and_the_report_shows_its_decision(tiny_run: Path, predictor: Predictor) -> None:
    said = predictor.predict(predictor.cube.symbols)
    _, episode = walked(tiny_run, predictor.models[-2].fold)
    assert episode.times[-1] == predictor.cube.times[-1]
    np.testing.assert_allclose([p.held_weight for p in said.predictions], episode.weights[-1], atol=1e-12)
    assert said.model_dump(mode="json") == json.loads((tiny_run / "result.json").read_text())["decision"]


def test_asked_for_one_symbol_or_twice_the_answer_is_the_same(predictor: Predictor) -> None:
    as_of = at(predictor, len(predictor.cube.times) - 3)
    everyone = predictor.predict(predictor.cube.symbols, as_of=as_of)
    for symbol, told in zip(predictor.cube.symbols, everyone.predictions, strict=True):
        assert predictor.predict([symbol], as_of=as_of).predictions == (told,)
    assert weights(everyone).sum() + everyone.cash_weight == pytest.approx(1.0, abs=1e-12)


# --- the future and the stages -------------------------------------------------------------------------------------


def test_noise_after_a_bar_leaves_its_answer_as_it_was(predictor: Predictor) -> None:
    first, last = predictor.models[0].first_row, len(predictor.cube.times) - 2
    for row in (first + 7, (first + last) // 2, last):
        noisy = perturb_future(predictor.cube, row, np.random.default_rng(row))
        other = Predictor(predictor.config, predictor.dataset, noisy, predictor.models)
        held = dict.fromkeys(noisy.symbols[:2], 0.25)
        assert (noisy.features[row + 1 :] != predictor.cube.features[row + 1 :]).any()
        assert other.predict(noisy.symbols, as_of=at(predictor, row), holdings=held) == predictor.predict(
            noisy.symbols, as_of=at(predictor, row), holdings=held
        )


class Shuffled:
    """A forecaster that says of each symbol what it thinks of the next."""

    def __init__(self, inner: Forecaster) -> None:
        self._inner, self.name, self.target = inner, inner.name, inner.target

    def fit(self, cube: Cube, rows: slice) -> None:
        self._inner.fit(cube, rows)

    def predict(self, cube: Cube, rows: Sequence[int]) -> ForecastTable:
        table = self._inner.predict(cube, rows)
        return replace(table, values=np.roll(table.values, 1, axis=1))


class Silent:
    """An analyst with nothing to say."""

    def __init__(self, name: str, horizon_bars: int) -> None:
        self.name, self.horizon_bars = name, horizon_bars

    def opine(self, views: Sequence[MarketView]) -> list[Opinion | Abstention]:
        return [Abstention(self.name, v.as_of, s, self.horizon_bars, "silenced") for v in views for s in v.symbols]


def test_forecasts_opinions_and_features_all_reach_the_decision(predictor: Predictor) -> None:
    models, symbols = predictor.models[0], predictor.cube.symbols
    row = models.first_row + 11
    as_of = at(predictor, row)
    plain = weights(predictor.predict(symbols, as_of=as_of))
    shuffled = with_models(predictor, replace(models, forecasters={n: Shuffled(f) for n, f in models.forecasters.items()}))
    silenced = with_models(predictor, models)
    silenced.desk = [Silent(a.name, predictor.config.agents.horizon_bars) for a in predictor.desk]
    features = predictor.cube.features.copy()
    assert isinstance(models.policy, DirectPolicy)
    seen = next(f.source for f in models.policy.recipe.fields if f.kind == "feature")
    features[row, 0, predictor.cube.feature_names.index(seen)] += 1.0
    shifted = Predictor(predictor.config, predictor.dataset, replace(predictor.cube, features=features), [models])
    for changed in (shuffled, silenced, shifted):
        assert np.abs(weights(changed.predict(symbols, as_of=as_of)) - plain).max() > 1e-7
    votes = silenced.predict(symbols[:1], as_of=as_of).predictions[0].votes
    assert {v.author: v.p_up for v in votes} == {**dict.fromkeys(predictor.config.agents.roster), MANAGER: None}


def test_holdings_reach_the_decision_and_are_told(predictor: Predictor) -> None:
    symbols = predictor.cube.symbols
    cash, full = (predictor.predict(symbols, holdings=h) for h in ({}, {symbols[0]: 1.0}))
    assert [p.held_weight for p in full.predictions] == pytest.approx([1.0] + [0.0] * (len(symbols) - 1))
    assert [p.held_weight for p in cash.predictions] == [0.0] * len(symbols)
    assert np.abs(weights(cash) - weights(full)).max() > 1e-7


# --- which model, and what is told ---------------------------------------------------------------------------------


def test_the_model_is_the_last_that_serves_by_then(predictor: Predictor) -> None:
    starts = [m.serves_from for m in predictor.models]
    assert starts == sorted(starts)
    for row in range(predictor.models[0].first_row, len(predictor.cube.times), 13):
        by_then = [m for m in predictor.models if m.serves_from <= predictor.cube.known_at[row]][-1]
        said = predictor.predict(predictor.cube.symbols[:1], as_of=at(predictor, row))
        assert said.model == ("direct, live" if by_then.fold == "live" else f"direct, fold {by_then.fold}")
        assert {v.fit_end for v in said.versions} == {moment_of(np.datetime64(r.fit_end)) for r in by_then.refs}
    assert predictor.predict(predictor.cube.symbols[:1]).model == "direct, live"


def test_between_bars_the_last_known_one_is_decided_on(predictor: Predictor) -> None:
    row = predictor.models[0].first_row + 5
    on_the_bar = predictor.predict(predictor.cube.symbols, as_of=at(predictor, row))
    assert predictor.predict(predictor.cube.symbols, as_of=at(predictor, row + 1) - dt.timedelta(microseconds=1)) == on_the_bar


def test_a_moment_before_the_first_model_or_long_after_the_last_bar_is_refused(predictor: Predictor) -> None:
    one, last = predictor.cube.symbols[:1], at(predictor, -1)
    with pytest.raises(DataError, match=r"no model of this run serves .*; expected .* or later"):
        predictor.predict(one, as_of=at(predictor, predictor.models[0].first_row) - dt.timedelta(seconds=1))
    assert any("last known bar" in note for note in predictor.predict(one, as_of=last + dt.timedelta(days=3)).notes)
    with pytest.raises(DataError, match=r"more than 5 bars after .* the data are stale"):
        predictor.predict(one, as_of=last + dt.timedelta(days=30))
    with pytest.raises(MissingDataError, match=r"unknown symbol 'S00O'.*Did you mean 'S00\d'"):
        predictor.predict(["S00O"])


def test_each_component_says_its_word(predictor: Predictor) -> None:
    (told,) = predictor.predict(predictor.cube.symbols[:1]).predictions
    assert [v.author for v in told.votes] == [*predictor.config.agents.roster, MANAGER]
    shares = [v.weight for v in told.votes if v.weight is not None]
    assert sum(shares) == pytest.approx(1.0, abs=1e-3)
    assert all(v.claims for v in told.votes if v.p_up is not None)
    assert {e.model for e in told.forecasts} == set(predictor.config.forecast.models)
    for e in told.forecasts:
        assert e.low is not None and e.expected is not None and e.high is not None and e.low < e.expected < e.high
        assert e.coverage == 0.8 and (e.target == "return" or e.low > 0)
    assert told.expected_return in told.forecasts and told.expected_return.model == "ttm"


def test_models_that_saw_what_came_later_are_marked(predictor: Predictor) -> None:
    models = predictor.models[0]
    first = np.datetime_as_string(models.serves_from + np.timedelta64(30, "D"))
    saw = with_models(predictor, replace(models, refs=(replace(models.refs[0], name="ttm", trained_until=first, version="older"),)))
    early = saw.predict(predictor.cube.symbols[:1], as_of=at(predictor, models.first_row + 3)).notes
    assert [note.split()[0] for note in early] == ["CONTAMINATED:", "Other"]
    assert not any("CONTAMINATED" in note for note in saw.predict(predictor.cube.symbols[:1]).notes)


# --- what is not served --------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tiny_run: Path, tmp_path: Path) -> Path:
    """The run as far as it is served, to be damaged."""
    (tmp_path / "run").mkdir()
    shutil.copy(tiny_run / "config.json", tmp_path / "run")
    shutil.copytree(tiny_run / "artefacts", tmp_path / "run" / "artefacts")
    return tmp_path / "run"


def test_one_changed_byte_in_any_file_is_refused_by_the_file_s_name(copy: Path) -> None:
    folder = copy / "artefacts" / "fold=0"
    FoldModels.load(folder)
    files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
    assert len(files) > 8
    for file in files:
        content = file.read_bytes()
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        with pytest.raises(CheckpointError, match=file.name):
            FoldModels.load(folder)
        file.write_bytes(content)


def test_a_run_that_did_not_finish_is_refused_in_one_line(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "artefacts" / "dataset.json").unlink()
    assert cli.main(["serve", "--run", str(copy), "--port", "8999"]) == 1
    shutil.rmtree(copy / "artefacts")
    assert cli.main(["serve", "--run", str(copy), "--port", "8999"]) == 1
    (copy / "config.json").unlink()
    assert cli.main(["serve", "--run", str(copy), "--port", "8999"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("error: ") for line in lines)
    assert "no dataset.json: it did not finish" in lines[0] and "--resume" in lines[1] and "is not a run" in lines[2]
