"""SafeDPO: DPO on pairs that safety puts in order, with an offset between safe and unsafe (arXiv 2505.20065)."""

import torch

from alignlab.config.plan import Plan
from alignlab.config.schema import SafeDpoConfig
from alignlab.data.safe_pairs import safe_pairs
from alignlab.errors import ConfigError
from alignlab.jobs.preference import prepare, say_left_out, train_from_table, training_table
from alignlab.prerequisites.rows import with_safety
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.training.losses import PreferenceLoss, safety_tilt


def run(plan: Plan[SafeDpoConfig], run: RunFolder, outcome: Outcome) -> None:
    """Train and measure. The offset is a tilt of the chosen response's reference.

    Args: every job's, see `alignlab.jobs`.
    """
    algorithm, objective = plan.algorithm, plan.objectives.trained
    prepared = prepare(plan, run, outcome, check=False)
    outcome.beta, outcome.loss_type = algorithm.beta, "sigmoid"
    outcome.recipe = {"offset": algorithm.offset}
    found = safe_pairs(with_safety(prepared.ranked, plan.rows), objective)
    counts = {"swapped": found.swapped, "both_unsafe": found.both_unsafe, "unlabelled": found.unlabelled}
    said = f"{found.swapped} turned round, as only the rejected response is safe; left out: {found.both_unsafe} of two"
    say(f"pairs of {objective}: {len(found.pairs)}, {said} unsafe responses, {found.unlabelled} without safety labels")
    if not found.pairs:
        raise ConfigError(f"dataset={plan.rows.settings.name}: no pair of {objective} has a response labelled safe")
    pairs = prepared.encode(found.pairs)
    say_left_out(pairs, outcome, unranked=0)
    outcome.extra["rows"] |= counts
    with run.stage("reference"):
        ref_logps_B = prepared.reference_logps(pairs.responses())
    table = training_table(pairs, ref_logps_B)
    gaps_P = torch.tensor([found.gaps[pair.id] for pair in pairs.pairs])
    tilts_P = safety_tilt(gaps_P, offset=algorithm.offset, beta=algorithm.beta)
    table = table.add_column("chosen_tilt", tilts_P.tolist()).add_column("rejected_tilt", [0.0] * len(gaps_P))
    train_from_table(prepared, table, PreferenceLoss("sigmoid", beta=algorithm.beta), run, outcome)
