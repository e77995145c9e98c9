"""The kernel against plain Python on random markets, accounts and rules, and its laws: money is conserved, many paths are many ones."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace

import numpy as np
import pytest

from rlaif_ray.core import Cube
from rlaif_ray.execution import kernel
from rlaif_ray.execution.account import AccountRules
from rlaif_ray.execution.costs import CostModel
from rlaif_ray.execution.simulator import Accounts, Fill, Market, StepResult, step, walk
from tests.markets import last_close, mean_volume, random_weights, reference_step, stormy, volatility

EVERYTHING = CostModel(0.0005, 0.001, 0.0005, impact=0.8, temporary=0.3, permanent=0.2, borrow=1e-4)
RESULTS = ("gross", "cost", "turnover", "weights", "ended")


def random_costs(rng: np.random.Generator) -> CostModel:
    """Each part on or off."""
    sizes = np.array([0.002, 0.002, 0.002, 1.0, 1.0, 1.0, 0.001]) * rng.uniform(0, 1, 7) * (rng.random(7) < 0.5)
    return CostModel(*sizes.tolist())


def random_account(rng: np.random.Generator) -> AccountRules:
    return AccountRules(
        long_short=bool(rng.random() < 0.6), whole_shares=bool(rng.random() < 0.3),
        participation=float(rng.choice([np.inf, 0.5, 0.02])), cash_interest=float(rng.choice([0.0, 0.04, -0.01])),
        maintenance=float(rng.choice([0.0, 0.3, 0.9])),
    )  # fmt: skip


def random_accounts(rng: np.random.Generator, market: Market, rows: np.ndarray, account: AccountRules) -> Accounts:
    """Accounts that hold something at their rows: whole or not, some short ones beyond what their margin allows, some that owe more
    than they have, and prices that earlier trades have moved."""
    n, assets = len(rows), market.book.shape[2]
    equity = rng.choice([3e3, 1e5, 1e7], n) * rng.uniform(0.5, 1.5, n)
    weights = random_weights(rng, n, assets, account.long_short)
    factor = np.exp(rng.choice([0.0, 0.05]) * rng.standard_normal((n, assets)))
    if account.long_short:
        weights *= rng.choice([1.0, 1.0, 3.0], (n, 1))
    price = market.book[rows, kernel.LAST] * factor
    shares = np.divide(weights * equity[:, None], price, out=np.zeros_like(price), where=price > 0)
    if account.whole_shares and rng.random() < 0.8:  # after a split an account may hold parts of a share all the same
        shares = np.trunc(shares)
    cash = equity - (shares * price).sum(axis=1)
    if account.long_short:
        cash -= np.where(rng.random(n) < 0.03, 1.1 * equity, 0.0)
    return Accounts(np.maximum(cash, 0.0) if not account.long_short else cash, shares, factor)


def assert_equals_plain_python(seed: int, groups: int, paths: int = 4) -> tuple[int, dict[str, int]]:
    """On one random market: `groups` random terms, each for `paths` random accounts at random rows. Returns how many were compared,
    and how often what is rare came up."""
    rng = np.random.default_rng(seed)
    cube = stormy(rng)
    fill: Fill = "next_open" if rng.random() < 0.7 else "next_close"
    market = Market.of(cube, fill)
    seen = {"ended before": 0, "ended": 0, "liquidated": 0, "scaled": 0, "short delisted": 0}
    for _ in range(groups):
        costs, account, rows = random_costs(rng), random_account(rng), rng.integers(0, len(cube.times) - 1, paths)
        accounts = random_accounts(rng, market, rows, account)
        targets = random_weights(rng, paths, len(cube.symbols), account.long_short)
        before = pickle.loads(pickle.dumps(accounts))
        result = step(market, accounts, rows, targets, costs, account)
        equity, after = before.equity(market, rows), accounts.equity(market, rows + 1)
        gross = np.abs(before.shares * market.book[rows, kernel.LAST] * before.factor).sum(axis=1)
        for n, t in enumerate(rows):
            start = float(before.cash[n]), before.shares[n].tolist(), before.factor[n].tolist()
            plain = reference_step(cube, fill, int(t), *start, targets[n].tolist(), costs, account)
            where = f"seed {seed}, row {t}, path {n}, {costs}, {account}"
            scale = max(abs(equity[n]), 1.0)
            price = np.maximum(market.book[t + 1, kernel.LAST], 1e-3)
            np.testing.assert_allclose(accounts.cash[n], plain["cash"], rtol=1e-9, atol=1e-9 * scale, err_msg=where)
            np.testing.assert_allclose(accounts.shares[n] * price, plain["shares"] * price, rtol=1e-9, atol=1e-9 * scale, err_msg=where)
            np.testing.assert_allclose(accounts.factor[n], plain["factor"], rtol=1e-9, err_msg=where)
            if equity[n] > 0:
                np.testing.assert_allclose(after[n], plain["equity"], rtol=1e-9, atol=1e-9 * scale, err_msg=where)
            for name in ("net", *RESULTS):
                seen_value = getattr(result, name)[n]
                np.testing.assert_allclose(seen_value, plain[name], rtol=1e-9, atol=1e-12, err_msg=f"{name}: {where}")
        seen["ended before"] += int((equity <= 0).sum())
        seen["ended"] += int((result.ended & (equity > 0)).sum())
        seen["liquidated"] += int(((equity < account.maintenance * gross) & account.long_short & (equity > 0)).sum())
        seen["short delisted"] += int(((before.shares < 0) & (market.book[rows + 1, kernel.DELISTED] > 0)).any(axis=1).sum())
        seen["scaled"] += int(((np.abs(accounts.cash) < 1e-7) & (result.turnover > 0)).sum())
    return groups * paths, seen


def test_the_kernel_equals_plain_python():
    assert sum(assert_equals_plain_python(seed, groups=5)[0] for seed in range(25)) == 500


@pytest.mark.slow
def test_the_kernel_equals_plain_python_in_ten_thousand_cases():
    compared, counts = zip(*(assert_equals_plain_python(1000 + seed, groups=10) for seed in range(250)), strict=True)
    assert sum(compared) == 10_000
    rare = {name: sum(count[name] for count in counts) for name in counts[0]}
    assert min(rare.values()) >= 20, rare  # the cases do reach what they are there for


def test_what_a_market_knows_of_prices_volumes_and_volatilities_equals_plain_python():
    for seed in range(3):
        cube = stormy(np.random.default_rng(seed), rows=60)
        book = Market.of(cube, "next_open").book
        for plane, plain in ((kernel.LAST, last_close), (kernel.ADV, mean_volume), (kernel.SIGMA, volatility)):
            expected = [[plain(cube, t, a) for a in range(4)] for t in range(60)]
            np.testing.assert_allclose(book[:, plane], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("long_short", [False, True])
def test_a_path_of_plain_python(long_short):
    """Bars in a row: what one leaves behind (parts of a share, moved prices, debts) is what the next starts from."""
    rng, account = np.random.default_rng(3), AccountRules(long_short, participation=0.3, cash_interest=0.03)
    for seed in range(4):
        cube = stormy(np.random.default_rng(seed), rows=60, wildness=0.5)
        market, accounts = Market.of(cube, "next_open"), Accounts.of_cash(1, 4, 1e5)
        targets = random_weights(rng, 59, 4, long_short)
        result = walk(market, accounts, slice(0, 59), targets, EVERYTHING, account)
        cash, shares, factor = 1e5, [0.0] * 4, [1.0] * 4
        for t in range(59):
            plain = reference_step(cube, "next_open", t, cash, shares, factor, targets[t].tolist(), EVERYTHING, account)
            cash, shares, factor = plain["cash"], plain["shares"], plain["factor"]
            for name in ("net", *RESULTS):
                np.testing.assert_allclose(getattr(result, name)[t], plain[name], rtol=1e-9, atol=1e-12, err_msg=f"{name} {t} {seed}")
        np.testing.assert_allclose(accounts.cash[0], cash, atol=1e-4)


# --- money ------------------------------------------------------------------------------------------------------------


def trading_costs(q: np.ndarray, price: np.ndarray, adv: np.ndarray, sigma: np.ndarray, costs: CostModel) -> np.ndarray:
    """(N,A) USD that orders of q shares cost; nothing but the rate where the name has no volume, for there no other part is charged."""
    size, adv = np.abs(q), np.where(adv > 0, adv, np.inf)
    linear = costs.rate + costs.impact * sigma * np.sqrt(size / adv) + costs.temporary * sigma * size / adv
    k = np.where(costs.permanent * sigma / adv > 0, costs.permanent * sigma / adv, 1e-300)
    moved = np.where(k > 1e-300, np.expm1(k * q) / k - q, 0.0)
    total = size * price * linear + price * moved
    return np.where(q < 0, np.minimum(total, size * price), total)  # nobody pays to be rid of a share


def assert_conserved(cube: Cube, seed: int, paths: int, costs: CostModel, account: AccountRules) -> tuple[float, int]:
    """Walk `paths` accounts with random targets and keep their books apart. Returns the largest gap in USD, and the steps."""
    rng, assets = np.random.default_rng(seed), len(cube.symbols)
    market = Market.of(cube, "next_open")
    accounts, largest, steps = Accounts.of_cash(paths, assets, 1e6), 0.0, len(cube.times) - 1
    for t in range(steps):
        rows, now, following = np.full(paths, t), market.book[t], market.book[t + 1]
        cash, shares, worth = accounts.cash.copy(), accounts.shares.copy(), now[kernel.LAST] * accounts.factor
        price, days, gone = following[kernel.FILL] * accounts.factor, market.days[t + 1], following[kernel.DELISTED] > 0
        equity = accounts.equity(market, rows)
        result = step(market, accounts, rows, random_weights(rng, paths, assets, account.long_short), costs, account)

        going = ~result.ended  # of one that has ended nothing is told but what it owes
        q = np.where(gone | ~going[:, None], 0.0, accounts.shares - shares * following[kernel.SPLIT])
        spent = trading_costs(q, price, now[kernel.ADV] * following[kernel.SPLIT], now[kernel.SIGMA], costs).sum(axis=1)
        borrowed = costs.borrow * days * (np.maximum(-shares, 0) * worth).sum(axis=1)
        earned = (shares * following[kernel.SPLIT] * following[kernel.DIVIDEND]).sum(axis=1) + (shares * worth * 0.7 * gone).sum(axis=1)
        ledger = cash * (1 + account.cash_interest * days / 365) + earned - (q * price).sum(axis=1) - spent - borrowed
        after = accounts.equity(market, rows + 1)
        gaps = (
            accounts.cash - ledger, after - equity * (1 + result.net), result.cost * equity - spent - borrowed,
            result.turnover * equity - (np.abs(q) * price).sum(axis=1), (result.gross - result.cost - result.net) * equity,
        )  # fmt: skip
        largest = max(largest, *(float(np.abs(gap[going]).max(initial=0.0)) for gap in gaps))
        assert not accounts.shares[~going].any()
        np.testing.assert_allclose(accounts.cash[~going], (equity * (1 + result.net))[~going], rtol=1e-9)

        assert (result.cost >= 0).all()
        assert (result.ended == (after <= 0)).all()
        assert not q[:, following[kernel.FILLABLE] == 0].any()
        np.testing.assert_allclose(result.weights.sum(axis=1) * after, np.where(after > 0, after - accounts.cash, 0), atol=1e-6)
        if not account.long_short:
            assert (accounts.cash >= 0).all() and (accounts.shares >= 0).all()
        if account.whole_shares:  # a split may leave parts of a share; what is cut to its part of the volume may leave them too
            whole = (np.rint(accounts.shares) == accounts.shares) | (np.abs(np.rint(q) - q) < 1e-9 * np.maximum(np.abs(shares), 1e3))
            assert whole[going].all()
        fresh = ~((after > 1e4) & (after < 1e7))  # ended, nearly so, or so rich that the last bit is worth something
        accounts.cash[fresh], accounts.shares[fresh], accounts.factor[fresh] = 1e6, 0.0, 1.0
    return largest, steps * paths


TERMS = [
    (CostModel(0.0005, 0.001), AccountRules(cash_interest=0.03)),
    (EVERYTHING, AccountRules(whole_shares=True, participation=0.05)),
    (EVERYTHING, AccountRules(long_short=True, cash_interest=0.03)),
    (EVERYTHING, AccountRules(long_short=True, participation=0.2, maintenance=0.5)),
]


@pytest.mark.parametrize(("costs", "account"), TERMS)
def test_cash_is_conserved(costs, account):
    largest, _ = assert_conserved(stormy(np.random.default_rng(5), rows=101, assets=6, wildness=0.3), 6, 100, costs, account)
    assert largest < 1e-6


@pytest.mark.slow
def test_cash_is_conserved_over_a_million_steps():
    steps = 0
    for i, (costs, account) in enumerate(TERMS):
        for seed in range(5):
            cube = stormy(np.random.default_rng(100 + 10 * i + seed), rows=251, assets=8, wildness=0.3)
            largest, walked = assert_conserved(cube, seed, 200, costs, account)
            steps += walked
            assert largest < 1e-6
    assert steps == 1_000_000


# --- one, many, and where they lie ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("costs", "account"), TERMS)
def test_many_paths_equal_one_and_a_walk_equals_steps(costs, account):
    rng = np.random.default_rng(3)
    market, targets = Market.of(stormy(rng, rows=112, assets=6, wildness=0.3), "next_open"), random_weights(rng, 100, 6, account.long_short)
    alone, walked, among = Accounts.of_cash(1, 6, 1e6), Accounts.of_cash(1, 6, 1e6), Accounts.of_cash(4, 6, 1e6)
    whole = walk(market, walked, slice(10, 110), targets, costs, account)
    bars = []
    for k in range(100):
        bars.append(step(market, alone, np.array([10 + k]), targets[k : k + 1], costs, account))
        others = np.concatenate([random_weights(rng, 3, 6, account.long_short), targets[k : k + 1]])
        for poor in range(3):  # neighbours whose equity is gone would do nothing
            among.cash[poor], among.shares[poor] = 1e6, 0.0
        many = step(market, among, np.array([k, 2, 5, 10 + k]), others, costs, account)
        for name in RESULTS:
            assert np.array_equal(getattr(bars[-1], name)[0], getattr(many, name)[3])
    joined = StepResult.joined(bars)
    for name in RESULTS:
        assert np.array_equal(getattr(joined, name), getattr(whole, name))
    for name in ("cash", "shares", "factor"):
        assert np.array_equal(getattr(alone, name), getattr(walked, name))
        assert np.array_equal(getattr(alone, name)[0], getattr(among, name)[3])


def test_arrays_out_of_an_object_store_are_read_only_and_do():
    made = Market.of(stormy(np.random.default_rng(2)), "next_open")
    buffers: list[pickle.PickleBuffer] = []
    message = pickle.dumps(made, protocol=5, buffer_callback=buffers.append)
    market = pickle.loads(message, buffers=[bytes(b.raw()) for b in buffers])  # what Ray hands out lies in memory that nobody may write
    assert not market.book.flags.writeable and not market.days.flags.writeable
    rows, targets = np.array([3, 4]), np.full((2, 4), 0.2)
    for array in (rows, targets):
        array.setflags(write=False)
    ours, theirs = Accounts.of_cash(2, 4, 1e6), Accounts.of_cash(2, 4, 1e6)
    here, there = (step(m, a, rows, targets, EVERYTHING) for m, a in ((made, ours), (market, theirs)))
    assert np.array_equal(here.net, there.net)
    assert np.array_equal(ours.shares, pickle.loads(pickle.dumps(theirs)).shares)
    walk(market, Accounts.of_cash(1, 4, 1e6), slice(3, 5), targets, EVERYTHING)


def test_a_book_at_row_t_knows_nothing_later():
    cube = stormy(np.random.default_rng(8), rows=60)
    whole = Market.of(cube, "next_open")
    for t in (1, 25, 40):
        cut = replace(cube, **{f.name: getattr(cube, f.name)[:t] for f in fields(cube) if isinstance(getattr(cube, f.name), np.ndarray)})
        assert np.array_equal(Market.of(cut, "next_open").book, whole.book[:t])


def test_a_step_sees_its_own_two_rows_and_no_other():
    cube, t = stormy(np.random.default_rng(9), rows=60, wildness=0.3), 30
    market = Market.of(cube, "next_open")

    def answer(book: np.ndarray) -> StepResult:
        accounts = Accounts(np.array([1e5]), np.full((1, 4), 10.0), np.ones((1, 4)))
        return step(replace(market, book=book), accounts, np.array([t]), np.full((1, 4), 0.2), EVERYTHING, AccountRules(participation=0.1))

    plain = answer(market.book)
    for row, same in ((t - 1, True), (t + 2, True), (t, False), (t + 1, False)):
        other = market.book.copy()
        other[row, [kernel.FILL, kernel.LAST, kernel.VOLUME]] *= 1.5
        assert (answer(other).net == plain.net).all() == same
    # of the bar that it fills on, it knows what nobody could before: neither its mean volume nor its volatility
    other = market.book.copy()
    other[t + 1, [kernel.ADV, kernel.SIGMA]] *= 2.0
    assert (answer(other).net == plain.net).all()
