"""MODPO: one objective's pairs against a reference that the other objectives' rewards tilt (arXiv 2310.03708)."""

import dataclasses
import shutil

from alignlab.config.plan import Plan
from alignlab.config.schema import ModpoConfig
from alignlab.evaluation.measure import Policy, Sampling, measure
from alignlab.io.atomic import new_folder
from alignlab.jobs.preference import prepare, record_cache, train_and_measure
from alignlab.models.cards import read_card, save_card
from alignlab.prerequisites.rewards import implicit_adapter
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome


def run(plan: Plan[ModpoConfig], run: RunFolder, outcome: Outcome) -> None:
    """Train and measure.

    Nothing is trained where one objective has all the weight and its policy exists: at w_k = 0 it is the adapter behind
    the other objective's implicit reward, at w_k = 1 that of the reward_model run with the same settings.
    """
    algorithm = plan.algorithm
    if plan.objectives.trained_weight == 0 or plan.same_as is not None:
        _take_reward_policy(plan, run, outcome)
    else:
        train_and_measure(plan, run, outcome, sft_weight=algorithm.sft_weight, check=algorithm.check_rewards)


def _take_reward_policy(plan: Plan[ModpoConfig], run: RunFolder, outcome: Outcome) -> None:
    """Copy the adapter behind one objective's implicit reward r = beta log(pi/pi_ref), and measure it.

    That policy pi is pi_ref exp(r/beta), the optimum for this objective alone.
    """
    prepared = prepare(plan, run, outcome, check=plan.algorithm.check_rewards)
    if plan.same_as is not None:
        only, beta = plan.objectives.trained, plan.algorithm.beta
        adapter = run.make_run(plan.same_as) / "adapter"
    else:
        (only,) = plan.objectives.others
        adapter, beta = implicit_adapter(plan.rewards[only], prepared.parts)
    say(f"{only} alone: takes the policy behind its implicit reward, {adapter}; no training")
    own = run.path / "adapter"
    with new_folder(own) as folder:
        shutil.copytree(adapter, folder, dirs_exist_ok=True)
        card = read_card(folder)
        if card is not None:
            save_card(folder, dataclasses.replace(card, algorithm=plan.algorithm.name, seed=plan.seed))
    outcome.artifacts["adapter"] = own.name
    outcome.beta, outcome.loss_type = beta, plan.algorithm.loss_type
    batch_size = plan.recipe.trainer.per_device_eval_batch_size
    policy = Policy(prepared.base, own, beta, plan.objectives, prepared.cache, batch_size)
    sampling = lambda: Sampling(plan.local_generator, plan.seed)  # noqa: E731
    measure(policy, run, outcome, source=plan.rows, held_out=prepared.held_out, sampling=sampling)
    record_cache(outcome, prepared.cache.counts)
