"""Data sets: where preferences come from, which objectives rank them, and what happens to rows that cannot be used."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from omegaconf import MISSING

from alignlab.config.names import PAIR_STRATEGIES
from alignlab.config.schema.ranges import check_ranges, within
from alignlab.config.schema.selection import OwnPairs
from alignlab.errors import ConfigError, nearest, require, require_name, require_one_of

SPLITS = ("train", "dev", "test")
SPLIT_BY = ("first_request", "prompt")
SPLIT_VERSION = 2
"""Raise it with any change of the split by hash: another split makes another run. 2: quotes, invisible characters and
the punctuation at the ends of a request make no difference."""
NO_RESPONSES = "prompts"
"""dataset.kind of data without responses: nothing ranks them."""

LABELS: dict[str, Sequence[str] | None] = {
    "pku_saferlhf": None,
    "c2_eval": None,
    "beavertails": ("is_safe",),
    "hh_rlhf": ("chosen",),
    "shp": ("labels",),
    "stack_exchange_paired": ("response_j",),
    "summarize_from_feedback": ("choice",),
    "ultrafeedback": ("overall_score", "instruction_following", "honesty", "truthfulness", "helpfulness"),
    "helpsteer": ("overall", "helpfulness", "correctness", "coherence", "complexity", "verbosity"),
    "pairs": ("chosen",),
    "ranked": None,
    "scored": None,
    "c2_syn": ("rank",),
    NO_RESPONSES: (),
}
"""dataset.kind of a file or hub set -> what can rank its responses; None for any column, or any name in its scores."""

_NAMED_BY_USE: dict[str, Callable[[str], str | None]] = {
    "pairs": lambda name: "chosen",
    "ranked": lambda name: name,
    "scored": lambda name: name,
    NO_RESPONSES: lambda name: None,
}
"""Kinds whose objectives a user names in dataset.use: name -> the label that it gets."""


@dataclass
class ObjectiveConfig:
    """One thing to be good at: what ranks the responses by it, null where nothing does and a reward stands for it."""

    label: str | None = MISSING
    gold: str | None = None


@dataclass
class DatasetConfig:
    """What every preference set has."""

    kind: str = MISSING
    name: str = MISSING
    objectives: dict[str, ObjectiveConfig] = MISSING
    use: list[str] | None = MISSING
    split: str | None = MISSING
    eval_split: str = MISSING
    test_share: float = MISSING
    max_rows: int | None = MISSING
    on_long: str = MISSING
    keep: str = MISSING
    k: list[int] = MISSING
    beta: float = MISSING
    benign: str | None = MISSING
    text: str | None = MISSING

    def __post_init__(self) -> None:
        require_name("dataset.name", self.name)
        self._select_objectives()
        require(bool(self.objectives), "dataset.objectives", "{}", "must name at least one objective")
        for name in self.objectives:
            require_name(f"dataset.objectives.{name}", name)
        labelled = any(objective.label is not None for objective in self.objectives.values())
        rule = "one at least must have a label, which ranks the responses"
        require(labelled or self.kind == NO_RESPONSES, "dataset.objectives", "{...}", rule)
        require(0 < self.beta < math.inf, "dataset.beta", self.beta, "must be a finite number > 0, in 1/nat")
        if self.split == "validation":  # what many call the dev split
            self.split = "dev"
        rule = f"{nearest(str(self.split), SPLITS)}, or null for all rows"
        require(self.split is None or self.split in SPLITS, "dataset.split", self.split, rule)
        require_one_of("dataset.eval_split", self.eval_split, ("dev", "test"))
        require_one_of("dataset.on_long", self.on_long, ("drop", "cut"))
        require_one_of("dataset.keep", self.keep, ("all", "consistent"))
        require(0 < self.test_share < 1, "dataset.test_share", self.test_share, "must be between 0 and 1")
        require(self.max_rows is None or self.max_rows > 0, "dataset.max_rows", self.max_rows, "must be > 0 or null")

    def _select_objectives(self) -> None:
        """Keeps the objectives that dataset.use names, in its order."""
        if self.use is None:
            return
        require(bool(self.use), "dataset.use", "[]", "must name at least one objective, or be null for all")
        require(len(set(self.use)) == len(self.use), "dataset.use", self.use, "names an objective twice")
        known = dict(self.objectives)
        for name in self.use:
            if name not in known and self.kind in _NAMED_BY_USE:
                known[name] = ObjectiveConfig(label=_NAMED_BY_USE[self.kind](name))
            elif name not in known and self._renames(known, name):
                known[name] = ObjectiveConfig(label=next(iter(known.values())).label)
            if name not in known:
                raise ConfigError(f"dataset.use={name}: no such objective; {nearest(name, known)}")
        self.objectives = {name: known[name] for name in self.use}

    def _renames(self, known: Mapping[str, ObjectiveConfig], name: str) -> bool:
        """Whether dataset.use gives the only objective of a set with one label another name, and no misspelt one.

        Args:
            known: the set's objectives.
            name: the one in dataset.use.
        """
        lone = len(LABELS.get(self.kind) or ()) == len(known) == len(self.use or ()) == 1
        return lone and not get_close_matches(name, known)


@dataclass
class ToyConfig(DatasetConfig):
    """The embedded world: pairs are sampled from the reference and labelled by known rewards."""

    pairs: int = MISSING
    requests: int = MISSING
    seed: int = MISSING
    exact_samples: int = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("dataset.kind", self.kind, ("toy",))
        require(self.split != "dev", "dataset.split", self.split, "the toy has train and test")
        require(self.eval_split == "test", "dataset.eval_split", self.eval_split, "the toy is measured on test alone")
        require(self.pairs > 0, "dataset.pairs", self.pairs, "must be > 0")
        require(0 < self.requests <= 100, "dataset.requests", self.requests, "must be between 1 and 100")
        require(self.exact_samples >= 100, "dataset.exact_samples", self.exact_samples, "must be >= 100")


@dataclass
class FileConfig(DatasetConfig):
    """A preference set from a file, a folder or the hub."""

    unlabelled: list[str] = MISSING
    path: str | None = MISSING
    hub: str | None = MISSING
    revision: str | None = MISSING
    subset: str | None = MISSING
    data_dir: str | None = MISSING
    train_split: str = MISSING
    test_split: str | None = MISSING
    ignore: list[str] = MISSING
    dev_share: float = MISSING
    split_by: str = MISSING
    on_bad_row: str = MISSING
    max_bad_share: float = MISSING
    overlap: str = MISSING
    held_out: list[str] = MISSING
    near_duplicates: float | None = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.unlabelled:
            require_name("dataset.unlabelled", name)
            other = self.objectives.get(name)
            require(other is None or other.label is None, "dataset.unlabelled", name, "is an objective with a label")
        self.objectives = {**self.objectives, **{name: ObjectiveConfig(label=None) for name in self.unlabelled}}
        require(self.kind != "toy", "dataset.kind", self.kind, "is the embedded world, which has no file")
        require_one_of("dataset.kind", self.kind, LABELS)
        require(bool(self.path or self.hub), "dataset.path", "null", "must name a file, or dataset.hub a hub dataset")
        require_one_of("dataset.on_bad_row", self.on_bad_row, ("error", "drop"))
        require(0 <= self.max_bad_share < 1, "dataset.max_bad_share", self.max_bad_share, "must be in [0, 1)")
        require_one_of("dataset.overlap", self.overlap, ("error", "drop"))
        require_one_of("dataset.split_by", self.split_by, SPLIT_BY)
        rule = "must be >= 0 and leave prompts to train on beside dataset.test_share"
        require(0 <= self.dev_share < 1 - self.test_share, "dataset.dev_share", self.dev_share, rule)
        near = self.near_duplicates
        rule = "must be a similarity above 0 and at most 1, or null for equal prompts alone"
        require(near is None or 0 < near <= 1, "dataset.near_duplicates", near, rule)
        known = LABELS[self.kind]
        for name, objective in self.objectives.items():
            key = f"dataset.objectives.{name}"
            require(objective.gold is None, f"{key}.gold", objective.gold, "only the toy knows its true rewards")
            if known is not None and objective.label is not None:
                require_one_of(f"{key}.label", objective.label, known)


@dataclass
class PromptsConfig(FileConfig):
    """Prompts alone; the model's own answers are scored and made into pairs where an algorithm needs these."""

    pairs: OwnPairs = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("dataset.kind", self.kind, (NO_RESPONSES,))


@dataclass
class ShpConfig(FileConfig):
    """Stanford Human Preferences: votes on Reddit answers."""

    min_score_ratio: float | None = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("dataset.kind", self.kind, ("shp",))
        ratio = self.min_score_ratio
        require(ratio is None or ratio >= 1, "dataset.min_score_ratio", ratio, "must be >= 1, or null for all rows")


@dataclass
class BeaverTailsConfig(FileConfig):
    """BeaverTails: single responses, each labelled safe or not."""

    pairs: str = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("dataset.kind", self.kind, ("beavertails",))
        require_one_of("dataset.pairs", self.pairs, ("matched", "all"))


@dataclass
class C2SynConfig(FileConfig):
    """Synthesised course corrections: ranked responses, and which pairs of them are trained on."""

    pairs: str = MISSING
    sft_weight: float = MISSING
    num_train_epochs: float = within("(0, 1e6]")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges("dataset", self)
        require_one_of("dataset.kind", self.kind, ("c2_syn",))
        require_one_of("dataset.pairs", self.pairs, PAIR_STRATEGIES)


DATASET_VARIANTS: dict[str, type[DatasetConfig]] = {
    "toy": ToyConfig,
    "file": FileConfig,
    "prompts": PromptsConfig,
    "shp": ShpConfig,
    "beavertails": BeaverTailsConfig,
    "c2_syn": C2SynConfig,
}
"""Schema name -> type; a kind without a schema of its own is a `file`."""


def dataset_variant(kind: str) -> str:
    """The schema name of a kind."""
    return kind if kind in DATASET_VARIANTS else "file"
