"""A small Tiny Time Mixer that learns return quantiles: Ekambaram et al., "Tiny Time Mixers", NeurIPS 2024.

One network for all symbols. It sees the last `context` log total returns divided by the symbol's usual volatility, so all
symbols have unit scale (tsfm's own scaler adds 1e-5 to the variance, which drowns raw returns) and a turbulent time still
looks turbulent. It answers with quantiles of the h-bar log return over the EWMA volatility known at the decision row and
the step's usual band, for every h up to the longest horizon. A network from random weights starts out as the naive
forecast (median 0, Student-t widths) and learns to depart. Pretrained weights were trained on levels: they see the path,
in EWMA volatilities, relative to its last point and predict how it goes on.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from tsfm_public.models.tinytimemixer import TinyTimeMixerConfig, TinyTimeMixerForPrediction

from rlaif_ray.core import Cube, ForecastTable, Target, content_hash
from rlaif_ray.data.events import total_returns
from rlaif_ray.errors import CheckpointError, ConfigError, DataError, NotFittedError
from rlaif_ray.forecast.baselines import MANIFEST, ewma_volatility, standard_quantiles
from rlaif_ray.labels import closed_inside, forward_sums, log_returns

MIN_BAND = 1e-3  # volatilities: prices that stand still have no band to measure
USUAL_DECAY = 0.996  # of the volatility that inputs are divided by: half of its weight lies in the last 170 bars
CLIP = 10.0  # standard deviations: a jump or a bar after a long halt must not own a batch


class TTMForecaster:
    """Return quantiles by a Tiny Time Mixer.

    Parameters
    ----------
    horizons, levels : bars ahead (rising); quantile levels, odd in number and symmetric about 0.5.
    context : bars of history a window, a multiple of 8.
    steps, refit_steps : optimiser steps of the first fit, and of each later one, which goes on from the weights it finds.
    batch, learning_rate : windows a step; peak of the one-cycle schedule (AdamW).
    seed : of initial weights, window sampling and dropout.
    weights, trained_until : folder or hub id of pretrained weights, and the last day that they may have seen.
    """

    name = "ttm"
    target: Target = "return"

    def __init__(
        self, *, horizons: Sequence[int], levels: Sequence[float], context: int = 128, steps: int = 2000, refit_steps: int = 500,
        batch: int = 128, learning_rate: float = 1e-3, seed: int = 0, weights: str | None = None,
        trained_until: dt.date | None = None,
    ) -> None:  # fmt: skip
        self.horizons, self.levels, self.context = tuple(horizons), tuple(levels), context
        self.steps, self.refit_steps, self.batch, self.learning_rate = steps, refit_steps, batch, learning_rate
        self.seed, self.weights, self.trained_until = seed, weights, trained_until
        self.fits = 0
        self._model: TinyTimeMixerForPrediction | None = None
        self._step_scale = np.ones(self.steps_ahead)  # network output times this times volatility is a log return
        self._check()

    def _check(self) -> None:
        symmetric = np.allclose(np.asarray(self.levels) + np.asarray(self.levels[::-1]), 1.0)
        if len(self.levels) < 3 or len(self.levels) % 2 == 0 or not symmetric or list(self.levels) != sorted(set(self.levels)):
            raise ConfigError(f"--forecast.levels is {list(self.levels)}; ttm expects 3, 5, 7 ... rising levels, symmetric about 0.5")
        if self.context % 8:
            raise ConfigError(f"--forecast.ttm.context is {self.context}; expected a multiple of 8")
        if self.weights is not None and self.trained_until is None:
            raise ConfigError("--forecast.ttm.weights is set; expected --forecast.ttm.trained_until too, the last day they may know")

    @property
    def steps_ahead(self) -> int:
        """Steps that the network predicts: its quantile head cannot work on a single one."""
        return max(2, self.horizons[-1])

    @property
    def parameter_hash(self) -> str:
        """Content hash of all that was learnt."""
        return content_hash({"step_scale": self._step_scale, **{k: v.numpy() for k, v in self._fitted().state_dict().items()}})

    def fit(
        self, cube: Cube, rows: slice, *, wrap: Callable[[nn.Module], nn.Module] | None = None, rank: int = 0, workers: int = 1
    ) -> None:  # fmt: skip
        """Learn from windows whose longest label closes inside `rows`; a second call goes on from the first's weights.

        With several `workers`, each is handed its share of the same batches and `wrap` makes the network average gradients.
        Raises `DataError` where no window has both its context and its label.
        """
        history = _History.of(cube, self.context)
        labels = forward_sums(history.log_returns, range(1, self.steps_ahead + 1)) / history.volatility[:, :, None]
        closed = closed_inside(len(labels), self.steps_ahead, rows)[:, None]
        picks = np.argwhere(closed & history.whole & np.isfinite(labels).all(-1))
        if not len(picks):
            raise DataError(
                f"no window of {self.context} bars of context and {self.steps_ahead} of label on rows {rows.start} to {rows.stop - 1} "
                f"of {len(labels)} bars; bring more bars or lower --forecast.ttm.context"
            )
        with _one_thread(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + self.fits)  # dropout; the first fit's also starts the weights
            self._model = self._begin() if self._model is None else self._model
            if self._sees_returns:
                self._step_scale = self._outer_band(labels[picks[:, 0], picks[:, 1]])
            labels = np.clip(labels / self._step_scale, -CLIP, CLIP)
            self._train(self._model if wrap is None else wrap(self._model), history, labels, picks, rank, workers)
        self.fits += 1

    def _train(
        self, model: nn.Module, history: _History, labels: np.ndarray, picks: np.ndarray, rank: int, workers: int
    ) -> None:  # fmt: skip
        """AdamW with one cycle of the learning rate, on windows drawn with replacement."""
        steps = self.steps if self.fits == 0 else self.refit_steps
        rng = np.random.default_rng([self.seed, self.fits])
        optimiser = torch.optim.AdamW(model.parameters(), lr=self.learning_rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=self.learning_rate, total_steps=steps + 1, pct_start=0.2)
        model.train()
        for _ in range(steps):
            t, a = picks[rng.integers(len(picks), size=self.batch)][rank::workers].T
            future = torch.from_numpy(labels[t, a].astype(np.float32))[:, :, None]
            loss = model(past_values=self._inputs(history, t, a), future_values=future).loss
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        model.eval()

    def predict(self, cube: Cube, rows: Sequence[int]) -> ForecastTable:
        """Quantiles of the cumulative simple return; (T,A,H,Q), NaN where a symbol has no full context.

        One decision row is one batch, all symbols at their places, so a row forecast alone (as served) has the same bits as in bulk.
        """
        model = self._fitted()
        picked = np.asarray(rows)
        history, everyone = _History.of(cube, self.context), np.arange(len(cube.symbols))
        steps = np.asarray(self.horizons) - 1
        raw = np.full((len(picked), len(everyone), len(steps), len(self.levels)), np.nan)
        with _one_thread(), torch.inference_mode():
            for i, t in enumerate(picked):
                if history.whole[t].any():
                    out = model(past_values=self._inputs(history, np.full_like(everyone, t), everyone)).quantile_outputs
                    raw[i] = out[:, :, steps, 0].transpose(1, 2).numpy()
        raw[~history.whole[picked]] = np.nan
        log_quantiles = raw * self._step_scale[steps][:, None] * history.volatility[picked][:, :, None, None]
        values = np.expm1(log_quantiles).astype(np.float32)
        return ForecastTable(cube.known_at[picked], self.target, cube.symbols, self.horizons, self.levels, values, self.name)

    def save(self, directory: Path) -> None:
        """Weights as safetensors, everything else as JSON."""
        model = self._fitted()
        directory.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(directory)
        state = {
            "name": self.name, "horizons": self.horizons, "levels": self.levels, "context": self.context, "steps": self.steps,
            "refit_steps": self.refit_steps, "batch": self.batch, "learning_rate": self.learning_rate, "seed": self.seed,
            "weights": self.weights, "trained_until": self.trained_until and self.trained_until.isoformat(),
            "fits": self.fits, "step_scale": self._step_scale.tolist(), "parameter_hash": self.parameter_hash,
        }  # fmt: skip
        (directory / MANIFEST).write_text(json.dumps(state, indent=1))

    @classmethod
    def load(cls, directory: Path) -> TTMForecaster:
        """The inverse of `save`. Raises `CheckpointError` where the weights are not those that were saved."""
        state = json.loads((directory / MANIFEST).read_text())
        name, fits, step_scale, saved_hash = (state.pop(k) for k in ("name", "fits", "step_scale", "parameter_hash"))
        if name != cls.name:
            raise CheckpointError(f"{directory} holds the forecaster {name!r}; expected {cls.name!r}")
        state["trained_until"] = state["trained_until"] and dt.date.fromisoformat(state["trained_until"])
        forecaster = cls(**state)
        forecaster.fits, forecaster._step_scale = fits, np.asarray(step_scale)
        with torch.random.fork_rng(devices=[]):  # a new network draws weights, which then are replaced
            model = TinyTimeMixerForPrediction(TinyTimeMixerConfig.from_json_file(directory / "config.json"))
        model.load_state_dict(load_file(directory / "model.safetensors"))
        forecaster._model = model.eval()
        if forecaster.parameter_hash != saved_hash:
            raise CheckpointError(f"weights in {directory} have hash {forecaster.parameter_hash}; expected {saved_hash}, as saved")
        return forecaster

    def _fitted(self) -> TinyTimeMixerForPrediction:
        if self._model is None:
            raise NotFittedError("ttm has no weights yet; call fit, or load a folder that save wrote")
        return self._model

    @property
    def _sees_returns(self) -> bool:
        """Our own networks have no scaler and see returns; those that scale what they see were trained on levels."""
        return not self._fitted().config.scaling

    def _outer_band(self, labels: np.ndarray) -> np.ndarray:
        """(steps_ahead,) unit of each step, from labels (N,steps_ahead): in it the widest pair of quantiles lies where `Naive` has it.

        The quantile head is nearly blind to which step it speaks of, so that must be taken out before.
        """
        low, high = np.quantile(labels, [self.levels[0], self.levels[-1]], axis=0)
        wanted = standard_quantiles(self.levels)
        return np.maximum(high - low, MIN_BAND) / (wanted[-1] - wanted[0])

    def _inputs(self, history: _History, t: np.ndarray, a: np.ndarray) -> torch.Tensor:
        """(B,context,1) float32 network input of the windows that end at rows t (B,) of symbols a (B,); zeros where one is not whole."""
        unit = history.usual_volatility if self._sees_returns else history.volatility
        with np.errstate(invalid="ignore"):
            scaled = np.clip(history.windows[t, a] / unit[t, a][:, None], -CLIP, CLIP)
        scaled[~history.whole[t, a]] = 0.0
        if not self._sees_returns:
            path = np.cumsum(scaled, axis=1)
            scaled = path - path[:, -1:]
        return torch.from_numpy(scaled.astype(np.float32))[:, :, None]

    def _begin(self) -> TinyTimeMixerForPrediction:
        """Where training starts: the weights that were given, or random ones that forecast like `Naive`."""
        levels = [float(x) for x in self.levels]
        if self.weights is not None:
            return self._pretrained(self.weights, levels)
        patch = 8 if self.context <= 128 else 16
        config = TinyTimeMixerConfig(
            context_length=self.context, patch_length=patch, patch_stride=patch, prediction_length=self.steps_ahead, num_input_channels=1,
            d_model=32, num_layers=2, decoder_num_layers=1, decoder_d_model=16, dropout=0.1, head_dropout=0.1, scaling=None,
            multi_quantile_head=True, quantile_levels=levels, mq_use_decoder_pool=True,
        )  # fmt: skip
        model = TinyTimeMixerForPrediction(config)
        middle, widths = model.head.base_forecast_block, model.multi_quantile_head_block
        assert isinstance(middle, nn.Linear) and widths is not None
        gaps = np.diff(standard_quantiles(levels)[len(levels) // 2 :])  # from the median outwards; the same downwards
        before_softplus = torch.from_numpy(np.log(np.expm1(gaps))).float()
        with torch.no_grad():
            for tensor in (middle.weight, middle.bias, widths.pw2.weight):
                tensor.zero_()
            widths.get_parameter("pw2.bias").copy_(torch.cat([torch.zeros(1), before_softplus, before_softplus]))
        return model

    def _pretrained(self, source: str, levels: list[float]) -> TinyTimeMixerForPrediction:
        """Weights from a folder or the hub; they fix the context and bound the horizon. A missing quantile head starts from chance."""
        try:
            config = TinyTimeMixerConfig.from_pretrained(source)
        except OSError as error:
            seen = str(error).splitlines()[0]
            raise ConfigError(f"no Tiny Time Mixer weights at {source!r} ({seen}); expected a local folder or a hub id") from None
        if config.context_length != self.context or config.num_input_channels != 1:
            raise ConfigError(
                f"weights {source} see {config.num_input_channels} channels of {config.context_length} bars; expected 1 channel and "
                f"--forecast.ttm.context={config.context_length} (it is {self.context})"
            )
        if config.prediction_length < self.steps_ahead:
            raise ConfigError(f"weights {source} predict {config.prediction_length} bars; --forecast.horizons asks for {self.steps_ahead}")
        if not config.multi_quantile_head:
            config.multi_quantile_head, config.mq_use_decoder_pool, config.quantile_levels = True, True, levels
        elif config.quantile_levels != levels:
            raise ConfigError(f"weights {source} have the levels {config.quantile_levels}; --forecast.levels is {levels}: make them equal")
        config.prediction_filter_length = self.steps_ahead
        return TinyTimeMixerForPrediction.from_pretrained(source, config=config)


@dataclass(frozen=True)
class _History:
    """What is known at each row, before scaling."""

    log_returns: np.ndarray  # (T,A)
    windows: np.ndarray  # (T,A,context) the log returns up to each row, a view; NaN before the first bar
    volatility: np.ndarray  # (T,A) per bar, of the last weeks
    usual_volatility: np.ndarray  # (T,A) per bar, of the last year
    whole: np.ndarray  # (T,A) bool: no bar of the window is missing and the volatility is known

    @classmethod
    def of(cls, cube: Cube, context: int) -> _History:
        logs = log_returns(total_returns(cube))
        volatility = ewma_volatility(logs)
        padded = np.concatenate([np.full((context - 1, logs.shape[1]), np.nan), logs])
        missing = np.cumsum(np.isnan(padded), axis=0)
        fresh = missing[context - 1 :] - np.concatenate([np.zeros_like(missing[:1]), missing[: len(logs) - 1]])
        windows = np.lib.stride_tricks.sliding_window_view(padded, context, axis=0)
        return cls(logs, windows, volatility, ewma_volatility(logs, USUAL_DECAY), (fresh == 0) & np.isfinite(volatility))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in another order are other bits: torch works on one thread inside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
