"""MODPO: one objective's pairs against a reference that the other objectives' rewards tilt (arXiv 2310.03708)."""

import dataclasses
import shutil
from pathlib import Path

from alignlab.config.plan import Plan
from alignlab.config.schema import ModpoConfig
from alignlab.io.atomic import new_folder
from alignlab.jobs.preference import Prepared, measure_policy, prepare, train_and_measure
from alignlab.models.cards import read_card, save_card
from alignlab.prerequisites.rewards import implicit_adapter
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome


def run(plan: Plan[ModpoConfig], run: RunFolder, outcome: Outcome) -> None:
    """Train and measure.

    w_k is the weight of the objective whose pairs are trained on, the heaviest by default. Where one objective has all
    the weight, another run's adapter is taken, which is trained first if it does not exist: at w_k = 0 the one behind
    the other objective's implicit reward; at w_k = 1 that of the reward_model run, if loss, beta and rounds are its.

    Args: every job's, see `alignlab.jobs`.
    """
    algorithm, objectives = plan.algorithm, plan.objectives
    prepared = prepare(plan, run, outcome, check=algorithm.check_rewards)
    outcome.loss_type = algorithm.loss_type
    if plan.same_as is not None:
        adapter = run.make_run(plan.same_as) / "adapter"
        _take_policy(prepared, objectives.trained, adapter, algorithm.beta, run, outcome)
    elif objectives.trained_weight == 0:
        (only,) = objectives.others  # preflight refuses w_k = 0 with more
        adapter, beta = implicit_adapter(plan.rewards[only], prepared.parts)
        _take_policy(prepared, only, adapter, beta, run, outcome)
    else:
        train_and_measure(prepared, algorithm, run, outcome, sft_weight=algorithm.sft_weight)


def _take_policy(
    prepared: Prepared, objective: str, adapter: Path, beta: float, run: RunFolder, outcome: Outcome
) -> None:
    """Copy the adapter behind one objective's implicit reward r = beta log(pi/pi_ref), and measure it.

    That policy pi is pi_ref exp(r/beta), the optimum for this objective alone.

    Args:
        prepared: the data that it is measured on.
        objective: whose reward it is.
        adapter: its folder.
        beta: KL strength that it was trained with, 1/nat.
        run: takes the copy.
        outcome: takes the result.
    """
    say(f"{objective} alone: takes the policy that was trained on its pairs, {adapter}")
    own = run.path / "adapter"
    with new_folder(own) as folder:
        shutil.copytree(adapter, folder, dirs_exist_ok=True)
        card = read_card(folder)
        if card is not None:
            save_card(folder, dataclasses.replace(card, algorithm=prepared.algorithm, seed=prepared.recipe.seed))
    outcome.beta = beta
    measure_policy(prepared, prepared.policy(own, beta, {}), prepared.held_out, run, outcome)
