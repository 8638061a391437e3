"""Online: the policy answers prompts, is paid by weighted rewards less its distance, and learns (TRL's GRPOTrainer)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from alignlab.config.plan import Plan
from alignlab.config.schema import GrpoConfig, LocalGeneratorConfig
from alignlab.data.records import Prompt
from alignlab.errors import ConfigError
from alignlab.evaluation.scored import response_limit
from alignlab.jobs.preference import Prepared, card_and_measure, prepare
from alignlab.models.prompts import Encoded
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.runs.tracking import tracking
from alignlab.training.grpo import train_grpo


def run(plan: Plan[GrpoConfig], run: RunFolder, outcome: Outcome) -> None:
    """Train and measure. Only the training rows' prompts are used, and their responses to check rewards.

    Args: every job's, see `alignlab.jobs`.
    """
    algorithm, weights = plan.algorithm, plan.objectives.others
    prepared = prepare(plan, run, outcome, check=algorithm.check_rewards)
    outcome.beta, outcome.loss_type = algorithm.beta, "grpo"
    outcome.recipe |= {"normalised": True} if algorithm.normalise else {}
    outcome.recipe |= {"generations": algorithm.generations}
    generator = _generator(plan.local_generator, prepared)
    prompts = _prompts(prepared, outcome, generator.max_new_tokens)
    say(f"{len(prompts)} prompts, {algorithm.generations} responses to each at a time")

    def total(rows: Sequence[Encoded]) -> Tensor:
        scores = [weight * prepared.rewards[name].score_encoded(rows).double() for name, weight in weights.items()]
        return torch.stack(scores).sum(dim=0)

    with (
        run.stage("training"),
        tracking(plan.recipe.tracker, run.path) as tracker,
        prepared.cache.unkept(),
    ):
        adapter = train_grpo(
            prepared.base,
            prompts,
            total,
            beta=algorithm.beta,
            generations=algorithm.generations,
            generator=generator,
            trainer=plan.recipe.trainer,
            peft=plan.recipe.peft,
            hardware=plan.recipe.hardware.on_one_process(),
            seed=plan.seed,
            folder=run.path,
            callbacks=[tracker],
        )
    prepared.release_rewards()
    card_and_measure(prepared, adapter, algorithm.beta, run, outcome)


def _generator(settings: LocalGeneratorConfig, prepared: Prepared) -> LocalGeneratorConfig:
    """How the policy is sampled in training: at temperature 1, since it is to be the policy itself."""
    generator = replace(settings, temperature=1.0, top_p=1.0)
    if generator.max_new_tokens == 0:
        generator = replace(generator, max_new_tokens=response_limit(prepared.ranked, prepared.base.encoder))
        say(f"generator.max_new_tokens: {generator.max_new_tokens}, by the length of the data's own responses")
    return generator


def _prompts(prepared: Prepared, outcome: Outcome, max_new_tokens: int) -> list[tuple[Prompt, list[int]]]:
    """Every prompt that leaves room for an answer, with its tokens; the others are counted and said.

    Args:
        prepared: the training rows.
        outcome: takes the counts.
        max_new_tokens: longest answer.

    Raises:
        ConfigError: if no prompt is left.
    """
    max_length = prepared.recipe.trainer.max_length
    texts = dict.fromkeys(row.prompt for row in prepared.ranked)
    every = [(prompt, prepared.base.encoder.prompt_ids(prompt)) for prompt in texts]
    fitting = [(prompt, ids) for prompt, ids in every if len(ids) + max_new_tokens <= max_length]
    outcome.extra["prompts"] = {"train": len(fitting), "too_long": len(every) - len(fitting)}
    left_out = f"{len(every) - len(fitting)} of {len(every)} prompts leave no room for {max_new_tokens} new tokens"
    if not fitting:
        raise ConfigError(f"trainer.max_length={max_length}: {left_out}")
    if len(fitting) < len(every):
        say(f"trainer.max_length={max_length}: {left_out}, and are left out")
    return fitting
