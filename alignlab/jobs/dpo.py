"""DPO on one objective's pairs: the front's end at w=1."""

from alignlab.config.schema import RunConfig
from alignlab.jobs.preference import train_and_measure
from alignlab.runs.folder import Outcome, RunFolder


def run(config: RunConfig, run: RunFolder, outcome: Outcome) -> None:
    """Trains and measures; with no other objective the reference is not tilted."""
    train_and_measure(config, run, outcome)
