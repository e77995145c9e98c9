"""How a symbol moves with the others, and how all of them move as one: windows over the whole universe.

The market's bars are the timestamps of all symbols together. The market that a symbol is held against is the mean return
of the OTHER symbols of the bar, each weighing the same, and its sector that of the sector's others: in a mean of n
symbols that held it, a symbol would find 1/n of itself. A window counts where at least half of its returns are there, so
that a symbol which lists later than the rest has its first value half a window after.

A row that arrives late (known after another row of its timestamp, or of a later one) is left out of everybody's windows
for good and has no value itself: everybody's have been said by then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rlaif_ray.core import Panel
from rlaif_ray.features import co_movement, covariance, rolling
from rlaif_ray.features.across import allowed, on_given_rows
from rlaif_ray.features.family import Family, FeatureSet, FeatureSpec, Kind, Tables, Unit
from rlaif_ray.features.market import Market

FALLS = 10
"""Falling bars of the market that a downside beta needs."""
_STILL = 1e-9  # a standard deviation of shares that is rounding


def apply(tables: Tables, specs: Sequence[FeatureSpec]) -> Panel:
    """Features over the whole universe, of all its symbols.

    Parameters
    ----------
    tables : `features`: the columns that the specs name, `ret_1` first of all, of every symbol of the universe, sorted by
        symbol and timestamp, NaN where undefined; `sectors` (symbol, sector), where there are any: who is in which, always.
    specs : wanted; those whose inputs are not there are left out. A value follows from the `look_back_bars` of the market
        before its bar and from no older ones, to the last bit.

    Returns
    -------
    Panel with the same rows and `known_at`, float32. What is said of the market stands on every symbol's row.
    """
    wanted = allowed(tables, specs, _OF_SECTORS)
    market = Market.of(tables, wanted)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return on_given_rows(tables["features"], ((s.name, market.on_rows(s.of(market))) for s in wanted))


# --- formulas: (market, *parameters) -> (A,T), or (T,) of the market as a whole ------------------------------------------


def _over_bars(x: np.ndarray, bars: int) -> np.ndarray:
    """(T,) mean of the last `bars` of a line (T,)."""
    return co_movement.mean(x[None, :], bars)[0]


def _beta(market: Market, bars: int) -> np.ndarray:
    return market.on_market(bars)[0]


def _correlation(market: Market, bars: int) -> np.ndarray:
    return market.on_market(bars)[1]


def _r2(market: Market, bars: int) -> np.ndarray:
    return market.on_market(bars)[1] ** 2


def _idiosyncratic_vol(market: Market, bars: int) -> np.ndarray:
    return market.on_market(bars)[2]


def _residual(market: Market, bars: int) -> np.ndarray:
    return market.returns - market.on_market(bars)[0] * market.others


def _downside_beta(market: Market, bars: int) -> np.ndarray:
    falling = np.where(market.others < 0, market.others, np.nan)
    return co_movement.regression(market.returns, falling, bars, FALLS)[0]


def _beta_neutral(market: Market, feature: str, _: int, bars: int) -> np.ndarray:
    return co_movement.residual_across(market.columns[feature], market.on_market(bars)[0])


def _sector_beta(market: Market, bars: int) -> np.ndarray:
    return market.on_sector(bars)[0]


def _sector_correlation(market: Market, bars: int) -> np.ndarray:
    return market.on_sector(bars)[1]


def _sector_momentum(market: Market, bars: int) -> np.ndarray:
    log_return = np.log1p(co_movement.spread(market.returns, market.sectors)[0])
    ahead = np.expm1(bars * co_movement.mean(log_return - np.log1p(market.spread[0]), bars))
    return np.where(market.sectors[:, None] >= 0, ahead[market.sectors], np.nan)


def _relative_strength(market: Market, bars: int) -> np.ndarray:
    return np.expm1(bars * co_movement.mean(np.log1p(market.returns) - np.log1p(market.others), bars))


def _lag_correlation(market: Market, bars: int) -> np.ndarray:
    return market.behind_market(bars)[1]


def _leader_score(market: Market, bars: int) -> np.ndarray:
    return market.ahead_of_market(bars)[1] - market.behind_market(bars)[1]


def _market_return(market: Market, bars: int) -> np.ndarray:
    return np.expm1(bars * _over_bars(np.log1p(market.spread[0]), bars))


def _advancers(market: Market, bars: int) -> np.ndarray:
    risen = np.where(np.isnan(market.returns), np.nan, market.returns > 0)
    return _over_bars(co_movement.spread(risen, market.everyone)[0, 0], bars)


def _breadth(market: Market, bars: int) -> np.ndarray:
    distance = market.columns[f"sma_distance_{bars}"]
    return co_movement.spread(np.where(np.isnan(distance), np.nan, distance > 0), market.everyone)[0, 0]


def _dispersion(market: Market, bars: int) -> np.ndarray:
    return _over_bars(market.spread[1], bars)


def _dispersion_ratio(market: Market, short: int, long: int) -> np.ndarray:
    return np.log(_dispersion(market, short) / _dispersion(market, long))


def _average_correlation(market: Market, bars: int) -> np.ndarray:
    return covariance.average_correlation(market.returns, bars)


def _turbulence(market: Market, bars: int) -> np.ndarray:
    return market.turbulence(bars)[0]


def _correlation_surprise(market: Market, bars: int) -> np.ndarray:
    return market.turbulence(bars)[0] / market.turbulence(bars)[1]


def _absorption(market: Market, bars: int) -> np.ndarray:
    return market.absorption(bars)


def _absorption_shift(market: Market, short: int, long: int) -> np.ndarray:
    ratio = market.absorption(long)
    mean, sigma = rolling.moments(ratio, long)[:2]
    return np.where(sigma > _STILL, (rolling.mean(ratio, short) - mean) / sigma, np.nan)


_OF_SECTORS = (_sector_beta, _sector_correlation, _sector_momentum)


# --- the catalogue's rows ------------------------------------------------------------------------------------------------


def _family(
    name: str, formula: Callable[..., np.ndarray], kind: Kind, text: str, *bars: int, source: str = "", unit: Unit = "ratio", more: int = 0
) -> Family:
    """Of one window of returns, and `more` bars before it."""
    return Family(
        name, formula, ("ret_1",), lambda window: window + more, unit, kind, text, ("bars",), tuple((b,) for b in bars), source,
    )  # fmt: skip


def _longest(_: str, look_back: int, bars: int) -> int:
    return max(look_back, bars)


_ABSORPTION = "Kritzman, Li, Page and Rigobon 2011, JPM 37(4); no half-life"

CROSS_ASSET = FeatureSet(
    "cross_asset",
    (
        _family("market_beta_{bars}", _beta, "cross_section", "slope of {bars} returns on the mean of all other symbols'", 63, 252),
        _family(
            "market_correlation_{bars}", _correlation, "cross_section", "correlation of {bars} returns with the mean of all other symbols'",
            63, 252,
        ),
        _family("market_r2_{bars}", _r2, "cross_section", "share of the variance of {bars} returns that market_beta explains", 63),
        _family(
            "downside_beta_{bars}", _downside_beta, "cross_section", "slope on the market over its falling bars among {bars}, at least 10",
            252, source="Ang, Chen and Xing 2006, RFS 19, with a cut-off of 0",
        ),
        _family(
            "idiosyncratic_vol_{bars}", _idiosyncratic_vol, "volatility",
            "standard deviation of what market_beta_{bars} leaves of {bars} returns, per bar", 21, 63,
            source="after Ang, Hodrick, Xing and Zhang 2006, J. Finance 61",
        ),
        _family("market_residual_{bars}", _residual, "return", "ret_1 less market_beta_{bars} x the other symbols' mean return", 63),
        Family(
            "{feature}_beta_neutral_{bars}", _beta_neutral, ("{feature}", "ret_1"), _longest, "ratio", "cross_section",
            "what a line through the bar's symbols, of {feature} on market_beta_{bars}, leaves of {feature}",
            ("feature", "look_back", "bars"), (("ret_21", 21, 63), ("momentum_252_21", 252, 63), ("vol_21", 21, 63)),
        ),
        _family(
            "sector_beta_{bars}", _sector_beta, "cross_section", "slope of {bars} returns on the mean of the sector's other symbols'", 63,
        ),
        _family(
            "sector_correlation_{bars}", _sector_correlation, "cross_section",
            "correlation of {bars} returns with the mean of the sector's other symbols'", 63,
        ),
        _family(
            "sector_momentum_{bars}", _sector_momentum, "return",
            "mean return of the symbol's sector, compounded over {bars} bars, over that of all symbols, less 1", 21, 63,
            source="after Moskowitz and Grinblatt 1999, J. Finance 54",
        ),
        _family(
            "relative_strength_{bars}", _relative_strength, "return",
            "return over {bars} bars over that of the other symbols' mean, less 1", 21, 63, 126,
        ),
        _family(
            "market_lag_correlation_{bars}", _lag_correlation, "cross_section",
            "correlation of {bars} returns with the other symbols' mean a bar before", 63, source="Lo and MacKinlay 1990, RFS 3",
        ),
        _family(
            "leader_score_{bars}", _leader_score, "cross_section",
            "correlation of the market with the symbol a bar before, less market_lag_correlation_{bars}: above 0 it leads", 63,
        ),
        _family("market_ret_{bars}", _market_return, "return", "mean return of all symbols, compounded over {bars} bars", 1, 21),
        _family("advancers_{bars}", _advancers, "cross_section", "share of symbols that rose, mean over {bars} bars", 1, 10),
        Family(
            "breadth_{bars}", _breadth, ("sma_distance_{bars}",), lambda bars: bars - 1, "ratio", "cross_section",
            "share of symbols above their {bars}-bar mean", ("bars",), ((50,), (200,)),
        ),
        _family(
            "dispersion_{bars}", _dispersion, "volatility", "standard deviation of ret_1 over the symbols, mean over {bars} bars", 1, 21,
        ),
        Family(
            "dispersion_ratio_{short}_{long}", _dispersion_ratio, ("ret_1",), lambda short, long: max(short, long), "ratio", "volatility",
            "log of dispersion_{short} over dispersion_{long}", ("short", "long"), ((5, 63),),
        ),
        _family(
            "average_correlation_{bars}", _average_correlation, "regime",
            "mean correlation of {bars} returns over all pairs of symbols", 63,
        ),
        _family(
            "turbulence_{bars}", _turbulence, "regime",
            "squared Mahalanobis distance of the bar's returns from those of the {bars} bars before, over the number of symbols", 252,
            source="Kritzman and Li 2010, FAJ 66(5)", unit="score", more=1,
        ),
        _family(
            "correlation_surprise_{bars}", _correlation_surprise, "regime", "turbulence_{bars} over the same without the covariances", 252,
            source="Kinlaw and Turkington 2014, J. Asset Management 14(6)", unit="score", more=1,
        ),
        _family(
            "absorption_{bars}", _absorption, "regime",
            "absorption ratio: share of the variance of {bars} returns in the top fifth of eigenvectors, all bars weighing the same", 252,
            source=_ABSORPTION,
        ),
        Family(
            "absorption_shift_{short}_{long}", _absorption_shift, ("ret_1",), lambda _, long: 2 * long - 1, "score", "regime",
            "mean absorption_{long} of {short} bars less that of {long}, in standard deviations of the {long}",
            ("short", "long"), ((15, 252),), _ABSORPTION,
        ),
    ),
    apply,
    reads=("features",),
    across=True,
)  # fmt: skip
