"""SAC's losses (Haarnoja et al. 2018, eq. 5-9 and 18) on RLlib's Learner, in one backward pass an update.

RLlib's own SAC learner runs four backward passes over one graph and moves the targets once a call; here the losses share no
parameter, so one pass gives the same gradients, and the targets move at every minibatch: one call may carry many updates.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from ray.rllib.algorithms.dqn.dqn_learner import DQNLearner
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, QNetAPI, TargetNetworkAPI
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from rlaif_ray.rl.networks import Actor, Critic, layout_of, noisy

LEARNED = ("critic_loss", "q", "alpha", "logp")  # what an update tells of itself


class PortfolioSACModule(TorchRLModule, InferenceOnlyAPI, TargetNetworkAPI, QNetAPI):
    """Shared per-asset actor and twin critics. Explores with the actor's own noise, uniformly for the first `random_steps`.

    `model_config`: fields, hidden, allowed, random_steps, input_noise.
    """

    def setup(self) -> None:
        c = self.model_config
        self.actor = Actor(c["fields"], tuple(c["hidden"]))
        if not self.inference_only:
            self.critics = torch.nn.ModuleList(Critic(c["fields"], tuple(c["hidden"]), c["allowed"]) for _ in range(2))

    def make_target_networks(self) -> None:
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)

    def get_target_network_pairs(self) -> list[tuple[torch.nn.Module, torch.nn.Module]]:
        return [(self.critics, self.target_critics)]

    def get_non_inference_attributes(self) -> list[str]:
        return ["critics", "target_critics"]

    def compute_q_values(self, batch: dict[str, Any]) -> torch.Tensor:
        """min of the twins, (B,)."""
        return self._lower(self.critics, batch[Columns.OBS], batch[Columns.ACTIONS])

    def forward_target(self, batch: dict[str, Any]) -> torch.Tensor:
        return self._lower(self.target_critics, batch[Columns.OBS], batch[Columns.ACTIONS])

    def _forward_inference(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        with torch.no_grad():
            return {Columns.ACTIONS: self.actor.best(batch[Columns.OBS])}

    def _forward_exploration(self, batch: dict[str, Any], *, t: int = 0, **_: Any) -> dict[str, Any]:
        obs = batch[Columns.OBS]
        if t < self.model_config["random_steps"]:
            return {Columns.ACTIONS: torch.rand(len(obs), layout_of(obs, self.actor.fields).assets) * 2.0 - 1.0}
        with torch.no_grad():
            return {Columns.ACTIONS: self.actor.sample(obs)[0]}

    def _forward_train(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        noise, fields = self.model_config["input_noise"], self.actor.fields
        obs, next_obs = (noisy(batch[key], noise, fields) for key in (Columns.OBS, Columns.NEXT_OBS))
        with torch.no_grad():
            next_actions, next_logp = self.actor.sample(next_obs)
            target = self._lower(self.target_critics, next_obs, next_actions)
        out = {"q": torch.stack([critic(obs, batch[Columns.ACTIONS]) for critic in self.critics]), "next_q": target, "next_logp": next_logp}
        actions, out["logp"] = self.actor.sample(obs)
        # the critics are judged, not taught, by the actor's loss: its gradient must pass through them to the actions
        self.critics.requires_grad_(False)
        out["q_of_actor"] = self._lower(self.critics, obs, actions)
        self.critics.requires_grad_(True)
        return out

    @staticmethod
    def _lower(critics: torch.nn.ModuleList, obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return torch.minimum(critics[0](obs, actions), critics[1](obs, actions))


class PortfolioSACLearner(SACTorchLearner):
    """Fused Adam for critics, actor and temperature; losses, gradients and targets as the module's head says."""

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        module: Any = self.module[module_id]
        parts = {
            "critics": (list(module.critics.parameters()), config.critic_lr),
            "actor": (list(module.actor.parameters()), config.actor_lr),
            "alpha": ([self.curr_log_alpha[module_id]], config.alpha_lr),
        }
        for name, (params, lr) in parts.items():
            optimizer = torch.optim.Adam(params, lr=lr, fused=True)
            self.register_optimizer(module_id=module_id, optimizer_name=name, optimizer=optimizer, params=params, lr_or_lr_schedule=lr)

    def compute_loss_for_module(self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]) -> torch.Tensor:
        log_alpha: Any = self.curr_log_alpha[module_id]
        alpha = log_alpha.detach().exp()
        goes_on = 1.0 - batch[Columns.TERMINATEDS].float()
        target = batch[Columns.REWARDS] + config.gamma * goes_on * (fwd_out["next_q"] - alpha * fwd_out["next_logp"])
        critic_loss = (fwd_out["q"] - target).square().mean(dim=1).sum()
        actor_loss = (alpha * fwd_out["logp"] - fwd_out["q_of_actor"]).mean()
        alpha_loss = -(log_alpha * (fwd_out["logp"].detach().mean() + self.target_entropy[module_id])).sum()
        told = (critic_loss, fwd_out["q_of_actor"].mean(), alpha[0], fwd_out["logp"].mean())
        self.metrics.log_dict({key: value.detach() for key, value in zip(LEARNED, told, strict=True)}, key=module_id, window=1)
        return critic_loss + actor_loss + alpha_loss

    def compute_gradients(self, loss_per_module: dict[str, Any], **kwargs: Any) -> Any:
        return TorchLearner.compute_gradients(self, loss_per_module, **kwargs)

    @torch.no_grad()
    def apply_gradients(self, gradients_dict: Any) -> None:
        super().apply_gradients(gradients_dict)
        config: Any = self.config
        modules: Any = self.module
        for module in modules.values():
            for main, target in module.unwrapped().get_target_network_pairs():
                for learnt, slow in zip(main.parameters(), target.parameters(), strict=True):
                    slow.lerp_(learnt, config.tau)

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        # past DQNLearner, whose targets move once a call
        super(DQNLearner, self).after_gradient_based_update(timesteps=timesteps)

    @classmethod
    def rl_module_required_apis(cls) -> list[type]:
        return [QNetAPI, TargetNetworkAPI]
