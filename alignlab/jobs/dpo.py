"""DPO on one objective's pairs: the front's end at w=1."""

from alignlab.config.plan import Plan
from alignlab.config.schema import DpoConfig
from alignlab.jobs.preference import prepare, train_and_measure
from alignlab.runs.folder import RunFolder
from alignlab.runs.result import Outcome


def run(plan: Plan[DpoConfig], run: RunFolder, outcome: Outcome) -> None:
    """Train and measure; with no other objective the reference is not tilted.

    Args: every job's, see `alignlab.jobs`.
    """
    prepared = prepare(plan, run, outcome, check=True)
    train_and_measure(prepared, plan.algorithm, run, outcome, sft_weight=plan.algorithm.sft_weight)
