"""What nothing needs any more."""

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from alignlab.config.schema.algorithm import AlgorithmConfig
from alignlab.config.uses import Uses, always


@dataclass
class CleanConfig(AlgorithmConfig):
    """List, and if asked remove, what nothing needs."""

    uses: ClassVar[Uses] = Uses(reads={"paths": always, "force": always, "algorithm": always}, collects=always)
    remove: bool = MISSING
