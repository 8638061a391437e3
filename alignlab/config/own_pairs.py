"""Training on prompts alone: the pairs that are made first, and the rows that they leave."""

from collections.abc import Container
from dataclasses import fields
from pathlib import Path

from alignlab.config.schema.dataset import DatasetConfig, FileConfig, ObjectiveConfig
from alignlab.config.schema.pairs import PairsConfig
from alignlab.config.schema.selection import OwnPairs, PairSelection


def pairs_settings(chosen: OwnPairs, source: Path | None) -> PairsConfig:
    """Settings of the run that makes pairs.

    Args:
        chosen: dataset.pairs.
        source: folder of the adapter that answers; None for the model itself.
    """
    selection = {item.name: getattr(chosen, item.name) for item in fields(PairSelection)}
    return PairsConfig(name="pairs", sources=[] if source is None else [str(source)], **selection)


def scored_rows(dataset: DatasetConfig, scorers: Container[str], folder: Path) -> FileConfig:
    """The rows that a pairs run leaves, all of them, as a data set that is ranked by every objective with a scorer.

    Args:
        dataset: the prompts.
        scorers: the objectives with a scorer.
        folder: the pairs run's.
    """
    own = {item.name: getattr(dataset, item.name) for item in fields(FileConfig)}
    labels = {name: ObjectiveConfig(label=name if name in scorers else None) for name in dataset.objectives}
    own |= {"kind": "scored", "objectives": labels, "use": None, "unlabelled": [], "path": str(folder / "rows")}
    own["max_rows"] = None  # it counts prompts, and a prompt may have several pairs
    return FileConfig(**own)
