"""Online policy gradients through TRL's GRPOTrainer, whose optimum is that of the other methods.

Each step samples G responses to each of some prompts from the policy as it is. What is maximised is

    J = E[w.r(x,y) - beta log(pi(y|x) / pi_ref(y|x))],    whose optimum is pi_ref exp(w.r/beta).

GRPO's usual settings have another optimum. So the log-ratio is part of a response's reward (TRL's KL term has the
gradient of KL(pi_ref || pi)), the advantage is the reward minus the mean of its prompt's G, not divided by their
deviation, tokens are summed, not averaged by response (Dr. GRPO), and each sample makes one step.

Sources: Shao et al. 2024 (GRPO), arXiv:2402.03300; Liu et al. 2025 (Dr. GRPO), arXiv:2503.20783.
Shape letters: B responses.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from alignlab.config.schema import HardwareConfig, LocalGeneratorConfig, PeftConfig, TrainerConfig
from alignlab.data.records import Prompt
from alignlab.engine.models import eval_mode
from alignlab.engine.sampling.generate import stop_tokens
from alignlab.engine.sampling.sample import SampleRequest, sample_responses
from alignlab.engine.scoring.logps import response_logps
from alignlab.models.adapters import lora_config, save_adapter
from alignlab.models.base import Base
from alignlab.models.prompts import Encoded
from alignlab.training.loop import run_trainer, training_arguments

TotalReward = Callable[[Sequence[Encoded]], Tensor]
"""The weighted rewards of responses, which keep their prompts, shape (B,)."""


class OnlineTrainer(GRPOTrainer):  # type: ignore[misc]  # trl is untyped
    """TRL's GRPOTrainer on this project's tokens and samples.

    Args:
        prompts: every prompt with its tokens; rows of `train_dataset` name them by index.
        base: the reference; its model stays as it is.
        total: scores responses.
        beta: KL strength, in reward units a nat.
        generator: batch size and length of samples; their temperature is 1.
        named: GRPOTrainer's.
    """

    def __init__(
        self,
        *,
        prompts: Sequence[tuple[Prompt, list[int]]],
        base: Base,
        total: TotalReward,
        beta: float,
        generator: LocalGeneratorConfig,
        **named: Any,
    ) -> None:
        self.prompts, self.base, self.total, self.kl_strength, self.generator = prompts, base, total, beta, generator
        rewards: list[Any] = [reward, minus_kl]  # whose names stand in the log
        with warnings.catch_warnings():
            # TRL says of rollout_func that its interface may change, and has no other way to bring tokens of one's own.
            warnings.filterwarnings("ignore", message="You are using 'rollout_func'")
            super().__init__(reward_funcs=rewards, rollout_func=lambda names, trainer: trainer.rollout(names), **named)

    def rollout(self, names: Sequence[str]) -> dict[str, Any]:
        """Samples of the current policy with their rewards; a sample's randomness depends on step and number alone.

        Args:
            names: of the prompts, each as often as it is answered.
        """
        step = self.state.global_step
        asked = [self.prompts[int(name)] for name in names]
        requests = [SampleRequest(f"{step}/{number}", ids) for number, (_, ids) in enumerate(asked)]
        policy, base = self.accelerator.unwrap_model(self.model), self.base
        stops = stop_tokens(base.model, base.encoder)
        options: dict[str, Any] = {"config": self.generator, "seed": self.args.seed, "stops": stops, "label": "samples"}
        with eval_mode(policy), torch.no_grad():
            drawn = sample_responses(policy, requests, **options)
            rows = [replace(row, prompt=prompt) for row, (prompt, _) in zip(drawn, asked, strict=True)]
            known: dict[str, Any] = {"batch_size": self.generator.batch_size, "autocast": base.autocast}
            scored = [response_logps(model, rows, label="log-probs", **known) for model in (policy, base.model)]
        return {
            "prompt_ids": [row.prompt_ids for row in rows],
            "completion_ids": [row.response_ids for row in rows],
            "logprobs": None,
            "weighted_rewards": self.total(rows).tolist(),
            "kl_penalties": (self.kl_strength * torch.sub(*scored)).tolist(),
        }

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No model card: alignlab.json says what was trained."""


def reward(weighted_rewards: list[float], **_: Any) -> list[float]:
    """w.r of each response."""
    return weighted_rewards


def minus_kl(kl_penalties: list[float], **_: Any) -> list[float]:
    """-beta log(pi / pi_ref) of each response; its mean estimates minus beta times the KL."""
    return [-one for one in kl_penalties]


def train_grpo(
    base: Base,
    prompts: Sequence[tuple[Prompt, list[int]]],
    total: TotalReward,
    *,
    beta: float,
    generations: int,
    generator: LocalGeneratorConfig,
    trainer: TrainerConfig,
    peft: PeftConfig,
    hardware: HardwareConfig,
    seed: int,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
) -> Path:
    """Train a LoRA adapter and return its folder, `folder/adapter`. A checkpoint in the folder is resumed.

    Args:
        base: the reference. A copy of its weights is trained, so that rewards may read it meanwhile.
        prompts: every prompt with its tokens.
        total: the weighted rewards of responses.
        beta: KL strength, in reward units a nat.
        generations: responses to a prompt in one step, G.
        generator: how the policy is sampled.
        trainer: the optimiser's settings; a batch is of responses, an epoch of prompts.
        peft: the adapter.
        hardware: device; one process trains.
        seed: of adapter, order and samples.
        folder: the run folder.
        callbacks: told about logs and steps.
    """
    checkpoints = folder / "checkpoints"
    arguments = on_policy_arguments(
        checkpoints, training_arguments(trainer, hardware, seed=seed), generations, generator.max_new_tokens
    )
    hf_trainer = OnlineTrainer(
        prompts=prompts,
        base=base,
        total=total,
        beta=beta,
        generator=generator,
        model=copy.deepcopy(base.model),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": [str(index) for index in range(len(prompts))]}),
        processing_class=copy.deepcopy(base.tokenizer),
        peft_config=lora_config(peft, base.model),
        callbacks=list(callbacks),
    )
    run_trainer(hf_trainer, checkpoints, divergence=lambda: _fallen(hf_trainer))
    adapter = folder / "adapter"
    save_adapter(hf_trainer.accelerator.unwrap_model(hf_trainer.model), adapter)
    return adapter


def on_policy_arguments(
    checkpoints: Path, arguments: dict[str, Any], generations: int, max_new_tokens: int
) -> GRPOConfig:
    """TRL's arguments under which a step follows the gradient of J; see this file's beginning.

    Args:
        checkpoints: their folder.
        arguments: transformers' training arguments.
        generations: responses to a prompt in one step.
        max_new_tokens: longest response.
    """
    return GRPOConfig(
        output_dir=str(checkpoints),
        **arguments,
        beta=0.0,
        scale_rewards="none",
        loss_type="dr_grpo",
        num_generations=generations,
        max_completion_length=max_new_tokens,
    )


def _fallen(hf_trainer: OnlineTrainer) -> str | None:
    """What is wrong where J, which training maximises, ended a deviation of its samples below where it began."""
    lines = [line for line in hf_trainer.state.log_history if "reward" in line]
    late = lines[max(1, len(lines) // 2) :]
    if not late:
        return None
    first, last = lines[0], sum(line["reward"] for line in late) / len(late)
    if last >= first["reward"] - first["reward_std"]:
        return None
    return f"the mean of w.r - beta KL fell from {first['reward']:.3g} to {last:.3g}"
