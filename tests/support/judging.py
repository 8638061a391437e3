"""Items to judge, and settings of a judge behind a server."""

import dataclasses

from alignlab.config.schema import OpenAIJudgeConfig
from alignlab.judges import JudgeItem

SETTINGS = {
    "kind": "openai",
    "wordings": ["direct"],
    "base_url": "http://127.0.0.1:9/v1",
    "model": "rule-judge",
    "api_key_env": None,
    "temperature": 0.0,
    "max_tokens": 64,
    "structured": True,
    "workers": 8,
    "timeout_s": 5.0,
    "deadline_s": 30.0,
    "backoff_s": 0.005,
    "on_no_answer": "stop",
    "dry_run": False,
    "max_usd": None,
    "usd_per_million_input_tokens": None,
    "usd_per_million_output_tokens": None,
}


def items_of(count):
    """Items of which every third corrects its course; all texts differ."""
    return [
        JudgeItem(
            id=f"item-{number:03d}",
            request=f"describe widget {number}",
            prefix="sure here is how take the",
            continuation=f"widget {number} and "
            + ("then sorry i cannot go on" if number % 3 == 0 else "turn it twice"),
        )
        for number in range(count)
    ]


def truth(item):
    return "sorry" in item.continuation


def settings(**changes):
    return OpenAIJudgeConfig(**{**SETTINGS, **changes})


@dataclasses.dataclass
class Judged:
    rows: list
    data: bytes
    report: dict
