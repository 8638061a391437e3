"""RACO: the objectives' DPO losses by conflict-averse descent, limited by w (arXiv 2602.02495)."""

from alignlab.config.plan import Plan
from alignlab.config.schema import RacoConfig
from alignlab.jobs.dpo_lw import pairs_of_objectives
from alignlab.jobs.preference import prepare, train_from_table
from alignlab.runs.folder import RunFolder
from alignlab.runs.result import Outcome
from alignlab.training.conflict import ConflictAversion
from alignlab.training.losses import PreferenceLoss


def run(plan: Plan[RacoConfig], run: RunFolder, outcome: Outcome) -> None:
    """Train and measure.

    Args: every job's, see `alignlab.jobs`.
    """
    algorithm = plan.algorithm
    own = pairs_of_objectives(prepare(plan, run, outcome, check=False), algorithm, run, outcome)
    outcome.recipe = {"conflict": algorithm.conflict}
    index = [number for number, count in enumerate(own.counts.values()) for _ in range(count)]
    loss = PreferenceLoss(algorithm.loss_type, beta=algorithm.beta, label_smoothing=algorithm.label_smoothing)
    conflict = ConflictAversion(tuple(plan.objectives.others.values()), algorithm.conflict)
    train_from_table(own.prepared, own.table.add_column("objective", index), loss, run, outcome, conflict)
