"""Publish a finished front for other people's tools."""

import re
from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from alignlab.config.schema.algorithm import AlgorithmConfig
from alignlab.config.uses import Uses, always
from alignlab.errors import require, require_one_of

FORMATS = {"card": None, "study": "optuna", "logs": "inspect_ai"}
"""What can be written -> the library of the extra `publish` that it needs."""


@dataclass
class PublishConfig(AlgorithmConfig):
    """Write a front as a model card, an Optuna study and inspect logs, and push it to the hub if asked."""

    uses: ClassVar[Uses] = Uses(
        reads={"algorithm": always, "model.name": always, "dataset.name": always, "paths": always, "force": always},
        collects=always,
        writes=("published",),
    )
    front: str | None = MISSING
    formats: list[str] = MISSING
    verdicts: list[str] = MISSING
    texts: bool = MISSING
    license: str | None = MISSING
    push: str | None = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = f"must name some of {', '.join(FORMATS)}"
        require(bool(self.formats), "algorithm.formats", "[]", rule)
        for one in self.formats:
            require_one_of("algorithm.formats", one, FORMATS)
        needed = not self.verdicts or "logs" in self.formats
        require(needed, "algorithm.verdicts", self.verdicts, "are written as logs; add logs to algorithm.formats")
        if self.license is not None:
            named = bool(re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.license))
            require(named, "algorithm.license", self.license, "must be the hub's name of a licence, e.g. apache-2.0")
        if self.push is not None:
            named = bool(re.fullmatch(r"[\w.-]+/[\w.-]+", self.push))
            require(named, "algorithm.push", self.push, "must be a repository of the hub, owner/name")
            card = "card" in self.formats
            require(card, "algorithm.push", self.push, "takes its README.md along; add card to algorithm.formats")
