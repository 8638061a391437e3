"""Training on prompts alone: the pairs run that comes first, and the rows that it leaves."""

import dataclasses
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.config.names import first_scorer
from alignlab.config.schema.dataset import FileConfig, ObjectiveConfig, PromptsConfig
from alignlab.config.schema.pairs import PairsConfig
from alignlab.config.uses import value_at, why_unused

if TYPE_CHECKING:
    from alignlab.config.schema.run import RunConfig


def previous_round(config: "RunConfig") -> "RunConfig | None":
    """The run of one round less, whose policy answers for a run's pairs and is trained on; None for a first round."""
    rounds = value_at(config, "algorithm.rounds") or 1
    if rounds == 1 or why_unused(config, "algorithm.rounds") is not None:
        return None
    fewer: dict[str, Any] = {"rounds": rounds - 1}
    return dataclasses.replace(config, algorithm=dataclasses.replace(config.algorithm, **fewer), force=False)


def pairs_run(config: "RunConfig", source: str | None) -> "RunConfig":
    """The pairs run of a run on prompts: the same model, prompts, generator and scorers but for held-out ones.

    Args:
        config: the run.
        source: folder of the adapter that answers; None for the model itself.
    """
    assert isinstance(config.dataset, PromptsConfig)
    chosen = config.dataset.pairs
    algorithm = PairsConfig(
        name="pairs",
        sources=[] if source is None else [source],
        **{item.name: getattr(chosen, item.name) for item in fields(chosen) if item.name != "samples"},
    )
    generator = dataclasses.replace(config.generator, samples=chosen.samples)
    scorers = {name: one for name, one in config.scorers.items() if first_scorer(name) == name}
    return dataclasses.replace(config, algorithm=algorithm, generator=generator, scorers=scorers, force=False)


def scored_rows(config: "RunConfig", folder: Path) -> FileConfig:
    """The rows that a pairs run leaves, as a data set that is ranked by every objective with a scorer.

    Args:
        config: a run on prompts.
        folder: the pairs run's.
    """
    own = {item.name: getattr(config.dataset, item.name) for item in fields(FileConfig)}
    names = config.dataset.objectives
    labels = {name: ObjectiveConfig(label=name if name in config.scorers else None) for name in names}
    own |= {"kind": "scored", "objectives": labels, "use": None, "unlabelled": [], "path": str(folder / "rows")}
    return FileConfig(**own)
