"""Each rule by hand: the sign, the size, what is missing."""

import numpy as np

from rlaif_ray.agents import rule_analysts


def seen(**values: float) -> dict[str, np.ndarray]:
    return {name: np.array([value]) for name, value in values.items()}


def test_a_good_filing_counts_in_full_at_once_and_a_third_after_twenty_bars() -> None:
    fresh = rule_analysts.fundamental(seen(filing_score=2.0, filing_age_bars=0.0))
    older = rule_analysts.fundamental(seen(filing_score=2.0, filing_age_bars=20.0))
    assert fresh.score()[0] == 2.0
    assert np.isclose(older.score()[0], 2.0 / np.e)


def test_bad_news_pushes_down_and_stale_news_is_no_reason_to_speak() -> None:
    assert rule_analysts.sentiment(seen(news_score=-1.0, news_age_bars=0.0)).score()[0] == -1.0
    stale = rule_analysts.sentiment(seen(news_score=-1.0, news_age_bars=16.0))
    assert stale.silent is not None and stale.silent[0]


def test_last_weeks_loser_leans_up_by_its_fall_in_deviations() -> None:
    # a 5-bar fall of 4.47% at 2% a bar is one deviation: 0.02 * sqrt(5) = 0.0447
    found = rule_analysts.technical(seen(ret_5_excess=-0.02 * np.sqrt(5.0), vol_21=0.02))
    assert np.isclose(found.score()[0], 0.6)


def test_high_volume_and_an_oversold_name_add_to_it_and_what_is_not_known_adds_nothing() -> None:
    flat = {"ret_5_excess": 0.0, "vol_21": 0.02}
    assert np.isclose(rule_analysts.technical(seen(**flat, rsi_14=30.0, volume_z_21=1.0)).score()[0], 0.2 * 2.0 + 0.6)
    assert np.isclose(rule_analysts.technical(seen(**flat, rsi_14=30.0, volume_z_21=np.nan)).score()[0], 0.4)


def test_an_outlier_counts_as_three_deviations() -> None:
    assert rule_analysts.fundamental(seen(filing_score=80.0, filing_age_bars=0.0)).score()[0] == 3.0


def test_twice_the_median_volatility_halves_the_cap_and_leans_down() -> None:
    found = rule_analysts.risk({"vol_21": np.array([0.01, 0.02, 0.04])})
    assert found.max_weight is not None
    assert np.allclose(found.max_weight, [1.0, 1.0, 0.5])
    assert found.score()[0] > 0 == found.score()[1] > found.score()[2]


def test_a_price_that_never_moves_has_no_risk_to_tell() -> None:
    found = rule_analysts.risk({"vol_21": np.array([0.0, 0.02, 0.03])})
    assert found.silent is not None and found.silent.tolist() == [True, False, False]
