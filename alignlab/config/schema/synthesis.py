"""Synthesis: ranked responses to learn course correction from."""

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import MODEL, REQUESTS, both, if_kind, unless_set, when
from alignlab.config.names import PAIR_STRATEGIES
from alignlab.config.schema.algorithm import AlgorithmConfig
from alignlab.config.uses import Uses, always, not_here
from alignlab.errors import require, require_one_of

_WRITES = unless_set("algorithm.merge", "=[...], which joins what other runs have written")
_ASKS_JUDGE = if_kind("algorithm.filter", "requests", "ranks")


@dataclass
class SynthesisConfig(AlgorithmConfig):
    """Ranked responses: safe, corrected early to late, harmful."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **when(_WRITES, {**REQUESTS, **MODEL, "generator": always, "seed": always, "judge": _ASKS_JUDGE}),
            "generator.prompts": not_here,
            "generator.samples": lambda config: "on algorithm=synthesis, which writes each response once",
            "dataset.name": always,
            "model.name": always,
            "paths": always,
            "force": always,
            "algorithm": always,
        },
        data="requests",
        samples=_WRITES,
        judges=both(_WRITES, _ASKS_JUDGE),
        writes=(
            *("requests.jsonl", "responses.jsonl", "verdicts.jsonl", "ranked.jsonl", "README.md", "index.html"),
            *(f"{kind}pairs.{form}" for kind in ("", "control_") for form in ("jsonl", "parquet")),
        ),
        after_sweep="alignlab.synthesis.shards",
    )
    adapter: str | None = MISSING
    pairs: str = MISSING
    cuts: str = MISSING
    safe: str = MISSING
    control: str | None = MISSING
    filter: str = MISSING
    near_duplicates: float | None = MISSING
    held_out: list[str] = MISSING
    shard: int = MISSING
    num_shards: int = MISSING
    merge: list[str] = MISSING

    @property
    def only_merges(self) -> bool:
        """Whether it joins what other runs have written."""
        return bool(self.merge)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("algorithm.pairs", self.pairs, PAIR_STRATEGIES)
        require_one_of("algorithm.cuts", self.cuts, ("clauses", "tokens"))
        require_one_of("algorithm.safe", self.safe, ("refusal", "policy", "data"))
        require_one_of("algorithm.filter", self.filter, ("none", "requests", "ranks"))
        alike = self.near_duplicates
        good = alike is None or 0 < alike <= 1
        require(good, "algorithm.near_duplicates", alike, "must be a share in (0, 1], or null to keep near duplicates")
        require(self.num_shards > 0, "algorithm.num_shards", self.num_shards, "must be > 0")
        last = self.num_shards - 1
        require(0 <= self.shard <= last, "algorithm.shard", self.shard, f"must be in 0..{last} (algorithm.num_shards)")
        alone = not self.merge or self.num_shards == 1
        require(alone, "algorithm.num_shards", self.num_shards, "must be 1 with algorithm.merge, which joins shards")
