"""Course correction: how a harmful beginning is put into the model's mouth."""

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import MODEL, REQUESTS, both, if_kind, unless_set, when
from alignlab.config.schema.algorithm import AlgorithmConfig
from alignlab.config.uses import Uses, always, not_here
from alignlab.errors import require, require_one_of

PROFILES = ("strict", "words", "paper")
_MEASURES = unless_set("algorithm.compare", "=[...], which compares finished runs")


@dataclass
class CourseCorrectionConfig(AlgorithmConfig):
    """Prefill, sample, judge: Corr@k."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **when(_MEASURES, {**REQUESTS, **MODEL, "generator": always, "judge": always, "seed": always}),
            "generator.prompts": not_here,
            "dataset.name": always,
            "model.name": always,
            "paths": always,
            "force": always,
            "algorithm": _MEASURES,
            "algorithm.turn": both(_MEASURES, if_kind("algorithm.profile", "strict", "words")),
            "trainer.per_device_eval_batch_size": _MEASURES,
            "algorithm.compare": always,
            "algorithm.labels": always,
        },
        data="requests",
        samples=_MEASURES,
        judges=_MEASURES,
        collects=lambda config: None if _MEASURES(config) else "without algorithm.compare",
        writes=(
            *(
                f"{kind}{name}.jsonl"
                for kind in ("", "control_", "plain_", "plain_control_")
                for name in ("generations", "verdicts", "requests")
            ),
            *("corr.json", "control_corr.json", "corr.png", "index.html"),
        ),
        after_sweep="alignlab.course_correction.compare",
    )
    adapter: str | None = MISSING
    profile: str = MISSING
    k: list[int] = MISSING
    turn: str = MISSING
    control: str | None = MISSING
    compare: list[str] = MISSING
    labels: str | None = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("algorithm.profile", self.profile, PROFILES)
        require_one_of("algorithm.turn", self.turn, ("continue", "reinject_header"))
        require(bool(self.k), "algorithm.k", "[]", "must name at least one length")
        for k in self.k:
            require(k > 0, "algorithm.k", k, "must be > 0")
        require(sorted(set(self.k)) == self.k, "algorithm.k", self.k, "must rise, each length once")
        require(
            self.labels is None or len(self.compare) == 1,
            "algorithm.labels",
            self.labels,
            "judges the judge of one finished run; name it: algorithm.compare=[RUN_FOLDER]",
        )
