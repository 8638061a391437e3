"""MODPO: one objective's pairs against a reference that the other objectives' rewards tilt (arXiv 2310.03708)."""

import dataclasses
import shutil

from alignlab.config.plan import Plan
from alignlab.config.schema import ModpoConfig
from alignlab.engine.cache.scores import ScoreCache
from alignlab.evaluation.measure import Policy, Sampling, measure
from alignlab.io.atomic import new_folder
from alignlab.jobs.preference import record_cache, train_and_measure
from alignlab.models.cards import read_card, save_card
from alignlab.prerequisites.models import reference
from alignlab.prerequisites.reward_report import RewardContext, prepared_rewards
from alignlab.prerequisites.rewards import RewardParts, implicit_adapter
from alignlab.prerequisites.rows import data_inputs, data_report, held_out_rows, training_rows
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome


def run(plan: Plan[ModpoConfig], run: RunFolder, outcome: Outcome) -> None:
    """Train and measure. At the ends of a front the policy is an implicit reward's own adapter."""
    algorithm = plan.algorithm
    if plan.objectives.trained_weight == 0 or plan.same_as is not None:
        _take_reward_policy(plan, run, outcome)
    else:
        train_and_measure(plan, run, outcome, sft_weight=algorithm.sft_weight, check=algorithm.check_rewards)


def _take_reward_policy(plan: Plan[ModpoConfig], run: RunFolder, outcome: Outcome) -> None:
    """One objective alone: pi_ref * exp(r/beta) is the policy that its implicit reward r is read from."""
    trainer, cache = plan.recipe.trainer, ScoreCache(plan.cache / "scores")
    with run.stage("prerequisites"):
        outcome.extra |= data_report(plan.rows)
        base = reference(plan.model)
        parts = RewardParts(base, cache, run.make_run)
        if plan.same_as is not None:
            only, beta = plan.objectives.trained, plan.algorithm.beta
            adapter = run.make_run(plan.same_as) / "adapter"
        else:
            (only,) = plan.objectives.others
            adapter, beta = implicit_adapter(plan.rewards[only], parts)
        ranked, held_out = training_rows(plan.rows, base), held_out_rows(plan.rows, base)
        context = RewardContext(
            plan.rewards, parts, run.path, trainer.max_length, plan.rows.settings.on_long, plan.algorithm.check_rewards
        )
        prepared_rewards(context, outcome, ranked=ranked, held_out=held_out)
    say(f"{only} alone: takes the policy behind its implicit reward, {adapter}; no training")
    own = run.path / "adapter"
    with new_folder(own) as folder:
        shutil.copytree(adapter, folder, dirs_exist_ok=True)
        card = read_card(folder)
        if card is not None:
            save_card(folder, dataclasses.replace(card, algorithm=plan.algorithm.name, seed=plan.seed))
    outcome.artifacts["adapter"] = own.name
    outcome.inputs |= {"model": base.id, "revision": base.revision, **data_inputs(plan.rows, ranked)}
    outcome.beta, outcome.loss_type = beta, plan.algorithm.loss_type
    policy = Policy(base, own, beta, plan.objectives, cache, trainer.per_device_eval_batch_size)
    sampling = lambda: Sampling(plan.local_generator, plan.seed)  # noqa: E731
    measure(policy, run, outcome, source=plan.rows, held_out=held_out, sampling=sampling)
    record_cache(outcome, cache.counts)
