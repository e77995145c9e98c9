"""SAC on RLlib's new API stack, over the portfolio environment and the flat ring; its budget is gradient updates.

RLlib's EnvRunner samples, its LearnerGroup learns, its checkpoints restore; only `training_step` differs from stock SAC:
transitions go through the ring, and each call to the learner carries a whole fragment's updates.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ray.rllib.algorithms.sac.sac import SAC, SACConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    TIMERS,
)  # fmt: skip
from ray.tune.registry import register_env

from rlaif_ray.rl.env import PortfolioVectorEnv, Track
from rlaif_ray.rl.learner import LEARNED, PortfolioSACLearner, PortfolioSACModule
from rlaif_ray.rl.projection import ActionSet
from rlaif_ray.rl.replay import Ring
from rlaif_ray.rl.rewards import PARTS, Reward

FRAGMENT = 4  # steps of all paths between two calls to the learner


class PortfolioSACConfig(SACConfig):
    """SAC's settings and ours. `track` is a function, so that RLlib's many copies of a config do not copy the market."""

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or PortfolioSAC)
        self.track: Callable[[], Track] | None = None
        self.ring_capacity = 0
        self.updates_per_step = 1.0

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=PortfolioSACModule)

    def get_default_learner_class(self) -> type:
        return PortfolioSACLearner


class PortfolioSAC(SAC):
    """Each `training_step`: a fragment of all paths into the ring, then `updates_per_step` updates for each of its steps."""

    config: PortfolioSACConfig

    @classmethod
    def get_default_config(cls) -> PortfolioSACConfig:
        return PortfolioSACConfig()

    def setup(self, config: PortfolioSACConfig) -> None:
        super().setup(config)
        assert config.track is not None and config.seed is not None
        self.ring = Ring(config.ring_capacity, config.track().table, config.seed)
        self.updates = 0
        self.learned: dict[str, float] = {}
        self.parts: dict[str, float] = {}  # of the reward, mean a bar of the last fragment

    def _setup_logdir(self) -> None:
        """Outside Tune RLlib leaves a folder in the user's home for each algorithm; ours goes when the algorithm does."""
        if self._storage is not None:
            super()._setup_logdir()
        else:
            self._folder = tempfile.TemporaryDirectory(prefix="rlaif-sac-")
            self._logdir = self._folder.name

    def cleanup(self) -> None:
        super().cleanup()
        if self._storage is None:
            self._folder.cleanup()

    def training_step(self) -> None:
        assert self.env_runner_group is not None and self.learner_group is not None
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            sampled: Any = synchronous_parallel_sample(
                worker_set=self.env_runner_group, concat=True, sample_timeout_s=self.config.sample_timeout_s,
                _uses_new_env_runners=True, _return_metrics=True,
            )  # fmt: skip
        episodes, results = sampled
        self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
        self.ring.add(episodes)
        self.parts = _mean_parts(episodes)
        steps = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0)
        if steps < self.config.num_steps_sampled_before_learning_starts:
            return
        count = max(1, round(FRAGMENT * self.config.updates_per_step))
        size = self.config.train_batch_size_per_learner
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            batch = MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(self.ring.sample(count * size))}, env_steps=count * size)
            learned = self.learner_group.update(batch=batch, minibatch_size=size, timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: steps})
        self.learned = {key: float(learned[-1][DEFAULT_MODULE_ID][key].peek()) for key in LEARNED}
        self.metrics.aggregate(learned, key=LEARNER_RESULTS)
        self.updates += count
        self.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.learner_group, policies=[DEFAULT_MODULE_ID], inference_only=True
        )

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """RLlib leaves replay out of its checkpoints; a run that goes on without it would learn from a near-empty buffer."""
        return super().get_state(*args, **kwargs) | {"ring": self.ring.get_state(), "updates": self.updates}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.ring.set_state(state["ring"])
        self.updates = state["updates"]


def _mean_parts(episodes: Sequence[SingleAgentEpisode]) -> dict[str, float]:
    """Mean a bar of each part of the reward, of the bars that these chunks hold."""
    parts = [info["parts"] for episode in episodes for info in episode.get_infos()[1:]]
    return dict(zip(PARTS, np.mean(parts, axis=0).tolist(), strict=True)) if parts else {}


def configure(
    track: Callable[[], Track], *, allowed: ActionSet, reward: Reward, hidden: tuple[int, ...], batch: int, paths: int,
    updates_per_step: float, episode_bars: int, warmup_steps: int, gamma: float, tau: float, actor_lr: float, critic_lr: float,
    alpha_lr: float, replay: int, target_entropy: float, initial_alpha: float, input_noise: float, seed: int,
    cost_range: tuple[float, float] = (1.0, 1.0), subset: float = 1.0, num_gpus: float = 0,
) -> PortfolioSACConfig:  # fmt: skip
    """The algorithm's config over `track()`. `target_entropy` is per asset, in nats."""
    assets, width = track().table.shape[1:]

    def make_env(_: Any) -> PortfolioVectorEnv:
        return PortfolioVectorEnv(
            track(), paths=paths, episode_bars=episode_bars, allowed=allowed, reward=reward, cost_range=cost_range, subset=subset,
            seed=seed,
        )  # fmt: skip

    config = PortfolioSACConfig()
    config.track, config.ring_capacity, config.updates_per_step = track, replay, updates_per_step
    # Ray keeps registered environments by name for all workers of a job: members that train side by side need names of their own
    name = f"portfolio-{uuid.uuid4().hex}"
    register_env(name, make_env)
    # the environment's actions are the module's own: nothing to stretch or clip, path by path, on the way
    config.environment(env=name, disable_env_checking=True, normalize_actions=False, clip_actions=False)
    config.env_runners(
        num_env_runners=0, num_envs_per_env_runner=paths, gym_env_vectorize_mode="vector_entry_point", rollout_fragment_length=FRAGMENT
    )
    config.learners(num_learners=0, num_gpus_per_learner=num_gpus)
    config.training(
        gamma=gamma, tau=tau, lr=None, actor_lr=actor_lr, critic_lr=critic_lr, alpha_lr=alpha_lr, train_batch_size_per_learner=batch,
        initial_alpha=initial_alpha, target_entropy=target_entropy * assets, num_steps_sampled_before_learning_starts=warmup_steps * paths,
        replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 1},
    )  # fmt: skip
    model = {
        "fields": width - 1, "hidden": hidden, "allowed": allowed, "random_steps": warmup_steps * paths, "input_noise": input_noise,
    }  # fmt: skip
    config.rl_module(model_config=model)
    config.reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=0)
    config.debugging(seed=seed)
    config.torch_skip_nan_gradients = True  # no check of every gradient: weights are checked when they are judged
    return config
