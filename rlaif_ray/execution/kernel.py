"""The compiled half of the simulator: one path over one bar, and many of them, by the rules that `execution.simulator` lists."""

from __future__ import annotations

import numpy as np
from numba import boolean, float64, int64, njit, types

from rlaif_ray.execution.account import COMPILED, fits

DELISTING_RECOVERY = 0.7  # of the last close; Shumway (1997), "The delisting bias in CRSP data", finds about -30%
IMPACT_BARS = 20  # a month of daily bars: over which volume and volatility are told for what a fill moves
UNKNOWN_SIGMA = 0.02  # a bar, while a name has fewer than two returns

# Planes of a market's book.
FILL, LAST, SPLIT, DIVIDEND, FILLABLE, DELISTED, ADV, SIGMA, VOLUME = range(9)
PLANES = 9
_ROUNDING = 1e-9  # of a number of shares that come out of weights
_STEEP = 0.125  # up to here 12 terms of a series say the cost of permanent impact to the last bit
ROW, TARGET, BROKE = 1, 2, 3  # what can be wrong with a call

# Arrays that come out of Ray's object store are read-only; a kernel typed for writable ones would refuse them.
BOOK, LINE, TABLE = (types.Array(float64, axes, "C", readonly=True) for axes in (3, 1, 2))
ROWS = types.Array(int64, 1, "C", readonly=True)
_FLAGS = types.Array(boolean, 1, "C")


@njit(types.void(TABLE, float64[:, :, ::1]), cache=True, error_model="numpy")
def carry_forward(close, book):  # pragma: no cover
    """Last closes, and volume and volatility of the last bars, into the book. A split while there is no price changes what a share is."""
    bars, _, assets = book.shape
    returns, told, traded = np.zeros((bars, assets)), np.zeros((bars, assets)), np.zeros((bars, assets))  # 1 since the first
    known, volume, scale, lived = np.zeros(assets), np.zeros(assets), np.zeros(assets), np.zeros(assets)
    mean, total, count = np.zeros(assets), np.zeros(assets), np.zeros(assets)
    for t in range(bars):
        for a in range(assets):
            before = known[a] / book[t, SPLIT, a]
            known[a] = before if np.isnan(close[t, a]) else close[t, a]
            book[t, LAST, a] = known[a]
            traded[t, a] = 1.0 if known[a] > 0.0 else 0.0
            if before > 0.0:
                returns[t, a], told[t, a] = (known[a] + book[t, DIVIDEND, a]) / before - 1.0, 1.0
        since = max(0, t + 1 - IMPACT_BARS)
        volume[:], lived[:], mean[:], total[:], count[:] = 0.0, 0.0, 0.0, 0.0, 0.0
        scale[:] = 1.0  # shares of row t in a share of row k
        for k in range(t, since - 1, -1):
            for a in range(assets):
                volume[a] += book[k, VOLUME, a] * scale[a] * traded[k, a]
                scale[a] *= book[k, SPLIT, a]
                lived[a] += traded[k, a]
                mean[a] += returns[k, a]
                count[a] += told[k, a]
        for a in range(assets):
            mean[a] /= max(count[a], 1.0)
        for k in range(since, t + 1):
            for a in range(assets):
                total[a] += told[k, a] * (returns[k, a] - mean[a]) ** 2
        for a in range(assets):
            book[t, ADV, a] = volume[a] / max(lived[a], 1.0)
            book[t, SIGMA, a] = np.sqrt(total[a] / (count[a] - 1.0)) if count[a] >= 2.0 else UNKNOWN_SIGMA


@njit(types.UniTuple(int64, 2)(BOOK, ROWS, TABLE, LINE, LINE, TABLE, TABLE), **COMPILED)
def _first_offence(book, rows, targets, terms, cash, shares, factor):  # pragma: no cover
    """(what, where) of the first rule that is broken; (0, -1) for none."""
    long_short = terms[5] > 0.0
    for n in range(rows.shape[0]):
        if rows[n] < 0 or rows[n] > book.shape[0] - 2:
            return ROW, n
        if not fits(targets[n], long_short):
            return TARGET, n
    for n in range(min(cash.shape[0], rows.shape[0])):
        equity, lowest = cash[n], min(cash[n], 0.0)
        for a in range(shares.shape[1]):
            equity += shares[n, a] * book[rows[n], LAST, a] * factor[n, a]
            lowest = min(lowest, shares[n, a])
        if not (-np.inf < equity < np.inf and (long_short or lowest >= 0.0)):
            return BROKE, n
    return 0, -1


@njit(float64(float64, float64, float64), **COMPILED)
def _part(trade, adv, split):  # pragma: no cover
    """An order as a part of a bar's mean volume; where there is none, only a market without impact trades, and any number will do."""
    return trade / (adv * split if adv > 0.0 else 1.0)


@njit(float64(float64, float64, float64, float64, float64), **COMPILED)
def _rest(rate, impact, temporary, sigma, part):  # pragma: no cover
    """Costs as a fraction of the notional, all but those of permanent impact."""
    return rate + sigma * (impact * np.sqrt(part) + temporary * part)


@njit(float64(float64), **COMPILED)
def _whole(shares):  # pragma: no cover
    """Towards 0; what is a whole number but for rounding is that number, so that what is held can be asked for again."""
    return np.trunc(shares + np.copysign(_ROUNDING * max(1.0, abs(shares)), shares))


@njit(float64(float64), **COMPILED)
def _swell(x):  # pragma: no cover
    """(exp(x) - 1 - x) / x, what permanent impact costs of the notional: a series, for it compiles to vectors. |x| is cut at _STEEP."""
    x = min(max(x, -_STEEP), _STEEP)
    c = 1.0 / 6227020800.0 * x + 1.0 / 479001600.0
    c = c * x + 1.0 / 39916800.0
    c = c * x + 1.0 / 3628800.0
    c = c * x + 1.0 / 362880.0
    c = c * x + 1.0 / 40320.0
    c = c * x + 1.0 / 5040.0
    c = c * x + 1.0 / 720.0
    c = c * x + 1.0 / 120.0
    c = c * x + 1.0 / 24.0
    c = c * x + 1.0 / 6.0
    return (c * x + 0.5) * x


@njit(types.UniTuple(float64, 2)(BOOK, int64, LINE, LINE, LINE), **COMPILED)
def _beyond(book, t, terms, factor, trades):  # pragma: no cover
    """What `_swell` cuts off the costs of sales and of purchases, USD."""
    sales, purchases = 0.0, 0.0
    for a in range(trades.shape[0]):
        sigma, part = book[t, SIGMA, a], _part(abs(trades[a]), book[t, ADV, a], book[t + 1, SPLIT, a])
        x = terms[3] * sigma * part * np.sign(trades[a])
        if abs(x) > _STEEP:
            usd = abs(trades[a]) * book[t + 1, FILL, a] * factor[a]
            rest = _rest(terms[0], terms[1], terms[2], sigma, part)
            exact, told = rest + abs(np.expm1(x) / x - 1.0), rest + abs(_swell(x))
            purchases += usd * (exact - told) if x > 0.0 else 0.0
            sales += 0.0 if x > 0.0 else usd * (min(exact, 1.0) - min(told, 1.0))
    return sales, purchases


@njit(types.void(BOOK, int64, LINE, LINE, float64[::1], boolean), **COMPILED)
def _move(book, t, terms, trades, factor, steep):  # pragma: no cover
    """Permanent impact of the trades on the prices of this path, in place."""
    permanent, sigma, adv, split = terms[3], book[t, SIGMA], book[t, ADV], book[t + 1, SPLIT]
    if steep:
        for a in range(trades.shape[0]):
            factor[a] *= np.exp(permanent * sigma[a] * _part(trades[a], adv[a], split[a]))
    else:
        for a in range(trades.shape[0]):
            x = permanent * sigma[a] * _part(trades[a], adv[a], split[a])
            factor[a] *= 1.0 + x + x * _swell(x)


@njit(types.UniTuple(float64, 3)(LINE, float64, LINE, LINE), **COMPILED)
def _standing(last, cash, held, factor):  # pragma: no cover
    """Equity, gross exposure, and value of the shorts (<= 0), USD."""
    equity, exposure, short = cash, 0.0, 0.0
    for a in range(held.shape[0]):
        value = held[a] * last[a] * factor[a]
        equity += value
        exposure += abs(value)
        short += min(value, 0.0)
    return equity, exposure, short


@njit(
    types.UniTuple(float64, 2)(BOOK, int64, LINE, float64, LINE, float64[::1]), **COMPILED
)  # fmt: skip
def _scale_purchases(book, t, terms, scale, factor, trades):  # pragma: no cover
    """Every purchase scaled, in place; what they take and what they cost at that size, USD. A sale stays as it is."""
    adv, sigma, fill, split = book[t, ADV], book[t, SIGMA], book[t + 1, FILL], book[t + 1, SPLIT]
    rate, impact, temporary, permanent, whole = terms[0], terms[1], terms[2], terms[3], terms[6] > 0.0
    taken, costs, steep = 0.0, 0.0, 0.0
    for a in range(trades.shape[0]):
        trade = max(trades[a], 0.0) * scale
        trade = np.floor(trade) if whole else trade
        part = _part(trade, adv[a], split[a])
        usd, x = trade * fill[a] * factor[a], permanent * sigma[a] * part
        steep += 1.0 if x > _STEEP else 0.0
        taken += usd
        costs += usd * (_rest(rate, impact, temporary, sigma[a], part) + _swell(x))
        trades[a] = trade if trades[a] > 0.0 else trades[a]
    if steep > 0.0:
        costs += _beyond(book, t, terms, factor, trades)[1]
    return taken, costs


@njit(
    types.UniTuple(float64, 5)(BOOK, LINE, int64, LINE, LINE, float64, float64[::1], float64[::1], float64[::1]), **COMPILED
)  # fmt: skip
def simulate_bar(book, days, t, target, terms, cash, held, factor, weights):  # pragma: no cover
    """One path over the bar t -> t+1; `held`, `factor` and `weights` (A,) are written. Returns cash, gross, cost, turnover, equity(t+1)."""
    last, adv, sigma, fill, close = book[t, LAST], book[t, ADV], book[t, SIGMA], book[t + 1, FILL], book[t + 1, LAST]
    split, dividend, volume = book[t + 1, SPLIT], book[t + 1, DIVIDEND], book[t + 1, VOLUME]
    fillable, delisted = book[t + 1, FILLABLE], book[t + 1, DELISTED]
    rate, impact, temporary, permanent, borrow = terms[0], terms[1], terms[2], terms[3], terms[4]
    long_short, whole, participation, interest, maintenance = terms[5] > 0.0, terms[6] > 0.0, terms[7], terms[8], terms[9]
    assets = held.shape[0]
    equity, exposure, short = _standing(last, cash, held, factor)
    if not equity > 0.0:
        weights[:] = 0.0
        return cash, 0.0, 0.0, 0.0, equity
    liquidated = long_short and equity < maintenance * exposure
    invested = 0.0 if liquidated else equity
    limited = participation < np.inf and not liquidated
    moves = impact > 0.0 or temporary > 0.0 or permanent > 0.0
    fee = -borrow * days[t + 1] * short
    cash += cash * interest * days[t + 1] / 365.0 - fee

    # What each name is traded by goes into `weights` until the purchases are scaled.
    paid, sold, needed, sale_costs, purchase_costs, steep = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for a in range(assets):
        own, price = held[a] * split[a], last[a] * factor[a]
        paid += own * dividend[a] + (DELISTING_RECOVERY * held[a] * price if delisted[a] > 0.0 else 0.0)
        own = 0.0 if delisted[a] > 0.0 else own
        wanted = target[a] * invested / (price if price > 0.0 else 1.0) * split[a]
        wanted = _whole(wanted) if whole else wanted
        trade = wanted - own if fillable[a] > 0.0 and price > 0.0 and (adv[a] > 0.0 or not moves) else 0.0
        most = participation * volume[a] if limited else np.inf
        most = np.floor(most) if whole else most
        trade = min(max(trade, -most), most)
        buys, part = trade > 0.0, _part(abs(trade), adv[a], split[a])
        usd, x = abs(trade) * fill[a] * factor[a], permanent * sigma[a] * part
        steep += 1.0 if x > _STEEP else 0.0  # counted, for a largest one would not be taken four at a time
        share = _rest(rate, impact, temporary, sigma[a], part) + abs(_swell(x if buys else -x))
        cost = usd * (share if buys else min(share, 1.0))  # nobody pays to be rid of a share
        needed += usd if buys else 0.0
        purchase_costs += cost if buys else 0.0
        sold += 0.0 if buys else usd
        sale_costs += 0.0 if buys else cost
        held[a], weights[a] = own, trade
    if steep > 0.0:
        more = _beyond(book, t, terms, factor, weights)
        sale_costs, purchase_costs = sale_costs + more[0], purchase_costs + more[1]
    cash += paid + sold - sale_costs
    if needed > 0.0 and needed + purchase_costs > cash and not liquidated:
        needed, purchase_costs = _scale_purchases(book, t, terms, max(cash, 0.0) / (needed + purchase_costs), factor, weights)
        left = cash - needed - purchase_costs
        cash = left if abs(left) > 1e-15 * abs(cash) else 0.0  # the last bit is rounding, and may be below 0
    else:
        cash -= needed + purchase_costs

    if permanent > 0.0:
        _move(book, t, terms, weights, factor, steep > 0.0)
    after = cash
    for a in range(assets):
        held[a] += weights[a]
        weights[a] = held[a] * close[a] * factor[a]
        after += weights[a]
    whole_equity = after if after > 0.0 else np.inf
    for a in range(assets):
        weights[a] /= whole_equity
    if not after > 0.0:  # the path is over: what it owes stays, and it holds nothing that could bring it back
        cash = after
        held[:] = 0.0
    costs = (sale_costs + purchase_costs + fee) / equity
    return cash, after / equity - 1.0 + costs, costs, (sold + needed) / equity, after


@njit(
    types.UniTuple(int64, 2)(
        BOOK, LINE, ROWS, TABLE, int64, LINE, float64[::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], _FLAGS
    ),
    **COMPILED,
)  # fmt: skip
def run(book, days, rows, targets, stride, terms, cash, shares, factor, figures, weights, ended):  # pragma: no cover
    what, where = _first_offence(book, rows, targets, terms, cash, shares, factor)
    if what > 0:
        return what, where
    for n in range(rows.shape[0]):
        path = n * stride
        cash[path], figures[0, n], figures[1, n], figures[2, n], equity = simulate_bar(
            book, days, rows[n], targets[n], terms, cash[path], shares[path], factor[path], weights[n]
        )
        ended[n] = not equity > 0.0
    return 0, -1
