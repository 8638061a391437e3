"""An implicit reward for one objective: DPO on its pairs. Its policy is also the front's end at w=0."""

from alignlab.config.schema import RunConfig
from alignlab.jobs.preference import train_and_measure
from alignlab.runs.folder import Outcome, RunFolder


def run(config: RunConfig, run: RunFolder, outcome: Outcome) -> None:
    """Trains and measures; the adapter's card holds beta, base, template and data, without which it has no scale."""
    train_and_measure(config, run, outcome)
