"""A run that is killed while it is judged, or right after, reports all of its judging when it is run again."""

import json
import types

import pytest

from alignlab.config.schema import RulesJudgeConfig
from alignlab.course_correction.continuations import judge_continuations
from alignlab.course_correction.report import control_warning
from alignlab.io.records import Records
from alignlab.judges import load_judge
from support.judging import items_of, settings
from support.servers import FaultServer

OF_THE_RUN = ("items", "texts", "wordless", "unscored", "controls", "known_cases")
"""What does not belong to one attempt alone, as the number of calls does."""
ENCODER = types.SimpleNamespace(tokenizer=lambda text, add_special_tokens: {"input_ids": text.split()})
TEXTS = [*(item.continuation for item in items_of(6)), "?!", "?!"]
"""The last two are one text without a word."""


@pytest.fixture
def folder(tmp_path):
    requests = [{"id": "r", "prompt": "describe widgets"}]
    said = [{"id": f"r/{n}", "request_id": "r", "prefix": "sure", "continuation": text} for n, text in enumerate(TEXTS)]
    for name, rows in (("requests", requests), ("generations", said)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def judged(config, folder):
    """What result.json says of the judging after one attempt."""
    judge = load_judge(config, cache=None, folder=folder)
    judge_continuations(folder, judge, ENCODER)
    record = judge.report.record()
    return {name: record[name] for name in OF_THE_RUN}


@pytest.fixture(params=["openai", "rules"])
def config(request):
    """A judge that fails known cases, and one some of whose answers is none."""
    if request.param == "rules":
        yield RulesJudgeConfig(kind="rules", phrases=["nothing of this"])
        return
    with FaultServer("content_filter", share=0.4, always=True) as server:
        yield settings(base_url=server.url, workers=1)


@pytest.mark.parametrize("kept", [3, len(TEXTS)])
def test_killed_while_it_judges_or_right_after(config, folder, monkeypatch, kept):
    add, count = Records.add, []

    def add_some(records, record):
        count.append(record)
        if len(count) > kept:
            raise KeyboardInterrupt
        add(records, record)

    monkeypatch.setattr(Records, "add", add_some)
    try:
        first = judged(config, folder)
    except KeyboardInterrupt:
        first = None
    assert (first is None) == (kept < len(TEXTS))
    monkeypatch.undo()
    again = judged(config, folder)
    assert (again["items"], again["texts"]) == (len(TEXTS), len(TEXTS) - 1)
    assert len(again["known_cases"]) == again["controls"]["total"] > 0
    for file in (folder / "verdicts.jsonl", *(folder / "records").iterdir()):
        file.unlink()
    assert judged(config, folder) == again
    assert first in (None, again)
    assert (control_warning(again) is None) == (again["controls"]["failed"] == [])


def test_a_judge_that_failed_a_known_case_is_still_not_to_be_trusted(folder):
    config = RulesJudgeConfig(kind="rules", phrases=["nothing of this"])
    assert "NOT TO BE TRUSTED" in control_warning(judged(config, folder))
    assert "NOT TO BE TRUSTED" in control_warning(judged(config, folder)), "all is judged before this attempt"
