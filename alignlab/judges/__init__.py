"""Judges: who says whether a continuation corrects its course. Imports torch only for a judge that needs it."""

from pathlib import Path

from alignlab.config.schema import JudgeConfig, LocalJudgeConfig, OpenAIJudgeConfig, RulesJudgeConfig
from alignlab.judges.base import UNSCORED, Judge, JudgeItem, JudgeReport, OnVerdict, Verdict
from alignlab.judges.openai import OpenAIJudge
from alignlab.judges.rules import RulesJudge
from alignlab.judges.scores import judge_scores

__all__ = ["UNSCORED", "Judge", "JudgeItem", "JudgeReport", "OnVerdict", "Verdict", "judge_scores", "load_judge"]


def load_judge(
    config: JudgeConfig, *, cache: Path | None, folder: Path | None = None, device: str = "cpu", key: str = "judge"
) -> Judge:
    """The judge of a config.

    Args:
        config: its settings.
        cache: root of what runs share, where answers are kept for other runs; None keeps none.
        folder: the run's folder, where the judge keeps the known cases and its cost; None keeps them in memory.
        device: cpu or cuda, for a judge in this process.
        key: what its settings stand under, for errors, e.g. `scorers.better`.
    """
    match config:
        case OpenAIJudgeConfig():
            return OpenAIJudge(config, cache=cache, folder=folder, key=key)
        case LocalJudgeConfig():
            from alignlab.judges.local import LocalJudge

            return LocalJudge(config, cache=cache, folder=folder, device=device, key=key)
        case RulesJudgeConfig():
            return RulesJudge(config)
    raise TypeError(f"judge.kind={config.kind}: has no judge")
