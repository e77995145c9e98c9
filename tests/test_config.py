"""Defaults < preset < file < command line; a change of source drops the old source's knobs; the hash says what matters."""

import pytest

from rlaif_ray.config import SCALES, Config, known_knobs, load_config
from rlaif_ray.config_data import FACT_SOURCES, SOURCES, FileData, Sp500Data, SyntheticData
from rlaif_ray.errors import ConfigError


def test_each_layer_lies_over_the_one_before(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("rl: {sac: {updates: 77, batch: 32}}\nseed: 5\n")
    config = load_config("smoke", str(file), {"rl.sac.batch": "16"})
    assert config.rl.sac.paths == SCALES["smoke"]["rl"]["sac"]["paths"]
    assert (config.rl.sac.updates, config.rl.sac.batch, config.seed) == (77, 16, 5)
    assert config.rl.sac.gamma == Config().rl.sac.gamma


def test_what_a_verb_sets_lies_under_the_file(tmp_path):
    """And under the command line; a change of source, which drops the old one's knobs, leaves it."""
    file = tmp_path / "mine.yaml"
    verb = {"type": "alpaca", "bad_rows": "quarantine"}

    def bad_rows(text, **knobs):
        file.write_text(text)
        return load_config(None, str(file), {f"data.{name}": value for name, value in knobs.items()}, verb).data.bad_rows

    assert bad_rows("data: {names: [A], bad_rows: refuse}") == "refuse"
    assert bad_rows("data: {names: [A], bad_rows: refuse}", bad_rows="quarantine") == "quarantine"
    assert bad_rows("data: {type: csv, path: x}") == bad_rows("seed: 1", type="csv", path="x") == "quarantine"
    assert bad_rows("data: {type: csv, path: x, bad_rows: refuse}") == "refuse"
    assert bad_rows("data: {path: x, bad_rows: refuse}", type="csv") == "refuse"  # of whichever source is chosen
    assert bad_rows("data: {type: parquet, path: y, bad_rows: refuse}", type="csv", path="x") == "quarantine"
    file.write_text("data: {names: [A]}")
    assert load_config(None, str(file), None, verb).data.type == "alpaca"
    file.write_text("data: 3")
    with pytest.raises(ConfigError, match="--data"):
        load_config(None, str(file), None, verb)


@pytest.mark.parametrize("scale", sorted(SCALES))
def test_presets_are_valid_with_every_source(scale):
    assert isinstance(load_config(scale).data, SyntheticData)
    assert isinstance(load_config(scale, overrides={"data.type": "sp500"}).data, Sp500Data)
    assert isinstance(load_config(scale, overrides={"data.type": "parquet", "data.path": "x"}).data, FileData)


def test_the_order_of_type_and_its_knobs_does_not_matter():
    orders = [{"data.type": "csv", "data.path": "x"}, {"data.path": "x", "data.type": "csv"}]
    first, second = (load_config("smoke", overrides=o) for o in orders)
    assert first == second
    assert isinstance(first.data, FileData)
    assert first.data.path == "x"


def test_values_are_read_as_yaml():
    texts = {"rl.sac.hidden": "[8, 4]", "forecast.horizons": "[1, 3]", "data.start": "2001-02-03", "data.dataset": "null"}
    config = load_config(overrides=texts)
    assert config.rl.sac.hidden == (8, 4)
    assert config.forecast.horizons == (1, 3)
    assert str(config.data.start) == "2001-02-03"
    assert config.data.dataset is None


@pytest.mark.parametrize(
    ("text", "says"), [("- 1\n", "expected sections"), ("rl: [\n", "is not YAML"), ("rl: {sac: {updats: 1}}\n", r"rl\.sac\.updates")]
)
def test_a_bad_file_is_one_line(tmp_path, text, says):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        load_config(file=str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("knob", "value", "says"),
    [
        ("forecast.horizons", "[5, 1]", "rising"), ("forecast.horizons", "[]", "rising"), ("forecast.horizons", "[0, 1]", "1 or more"),
        ("forecast.levels", "[0.2, 0.8]", "symmetric about 0.5"), ("forecast.levels", "[0.1, 0.5, 0.8]", "symmetric about 0.5"),
        ("forecast.levels", "[0, 0.5, 1]", "between 0 and 1"), ("forecast.levels", "[0.1, 0.5, 0.5, 0.9]", "rising"),
        ("forecast.models", "[naive, naive]", "each once"), ("forecast.models", "[]", "at least one"),
        ("agents.roster", "[]", "at least one"), ("rl.sac.hidden", "[]", "at least 1 item"), ("rl.sac.hidden", "[0]", "greater than"),
    ],
)  # fmt: skip
def test_lists_that_no_stage_could_use_are_refused_at_the_door(knob, value, says):
    with pytest.raises(ConfigError, match=rf"--{knob}.*{says}") as caught:
        load_config(overrides={knob: value})
    assert "\n" not in str(caught.value) and "Value error" not in str(caught.value)


def test_the_hash_says_what_can_change_a_result():
    base = Config()
    assert base.hash == load_config().hash
    assert base.hash == load_config(overrides={"lake.uri": "elsewhere"}).hash
    assert base.hash == load_config(overrides={"backtest.chosen_until": "2020-01-02 21:00:00"}).hash
    assert base.hash != load_config(overrides={"seed": "1"}).hash
    assert base.hash != load_config(overrides={"execution.costs.slippage_bps": "0"}).hash


def test_a_preset_says_what_was_not_set_by_hand():
    research, institutional = (load_config(overrides={"execution.preset": name}).execution for name in ("research", "institutional"))
    assert load_config().execution == research
    assert (research.costs.half_spread_bps, research.costs.slippage_bps) == (1.0, 2.0)
    assert (institutional.costs.half_spread_bps, institutional.costs.slippage_bps) == (2.0, 5.0)
    limits = research.limits
    assert (limits.max_weight, limits.max_sector, limits.drawdown, limits.daily_loss) == (0.3, 0.5, 0.25, 1)
    limits = institutional.limits
    assert (limits.max_weight, limits.max_sector, limits.drawdown, limits.daily_loss, limits.intraday_loss) == (0.1, 0.3, 0.15, 0.03, 0.03)
    own = {"execution.preset": "institutional", "execution.costs.commission_bps": "9", "execution.limits.max_weight": "0.2"}
    mixed = load_config(overrides=own).execution
    assert (mixed.costs.commission_bps, mixed.costs.slippage_bps, mixed.limits.max_weight, mixed.limits.drawdown) == (9.0, 5.0, 0.2, 0.15)
    assert Config.model_validate(Config(execution=mixed).model_dump(mode="json")).execution == mixed

def test_every_known_knob_can_be_set_to_its_default():
    """The list that `--help` prints is the list that is accepted."""
    unions = {"data": SOURCES, "facts": FACT_SOURCES}
    needed = {"path": "x", "names": "[A]", "query": "SELECT 1", "topics": "[bars]", "servers": "['h:1']"}
    for knob, (default, _) in known_knobs().items():
        section, _, name = knob.partition(".")
        text = "null" if default is None else str(list(default) if isinstance(default, tuple) else default) or "''"
        overrides = {knob: text}
        if section in unions and name:
            kind, model = next((kind, model) for kind, model in reversed(unions[section].items()) if name in model.model_fields)
            wanted = {field for field, info in model.model_fields.items() if info.is_required()} - {"type"}
            overrides = {knob: text if name not in wanted else needed[name], f"{section}.type": kind}
            overrides |= {f"{section}.{field}": needed[field] for field in wanted}
        assert load_config(overrides=overrides)


def test_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().rl.members = 3  # pyright: ignore[reportAttributeAccessIssue]
