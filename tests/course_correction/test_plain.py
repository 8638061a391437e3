"""KL along plain answers: to the prompt that was asked, over silent answers too."""

import json
import types

import torch

from alignlab.course_correction import plain
from alignlab.course_correction.continuations import _request_rows
from alignlab.data.records import Turn
from alignlab.models.prompts import Encoded

TURNS = (Turn("system", "be brief"), Turn("user", "how?"))


def test_conversations_and_silent_answers_count(tmp_path, monkeypatch):
    request = types.SimpleNamespace(id="a", group="g", prompt=TURNS, categories=(), location="")
    (row,) = _request_rows([types.SimpleNamespace(request=request)])
    (tmp_path / "plain_requests.jsonl").write_text(json.dumps(row) + "\n")
    answers = [("so", "stop"), ("", "stop"), ("so on", "length"), ("", "length")]
    lines = [{"request_id": "a", "continuation": text, "finish": finish} for text, finish in answers]
    (tmp_path / "plain_generations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked, scored = [], []

    def encode_all(pairs, *, sampled):
        asked.extend(pairs)
        return [Encoded([1], [*range(len(text.split())), 9]) for _, text in pairs]

    def divergence(model, rows, **_):
        scored.extend(rows)
        return types.SimpleNamespace(kl=torch.ones(len(rows)))

    monkeypatch.setattr(plain, "divergence", divergence)
    policy = types.SimpleNamespace(has_adapter=True, model=None, encoder=types.SimpleNamespace(encode_all=encode_all))
    found = plain.plain_kl(tmp_path, policy, batch_size=4)["plain_kl"]
    assert {prompt for prompt, _ in asked} == {TURNS}, "the turns, not their text"
    assert [row.response_ids for row in scored] == [[0, 9], [9], [0, 1]], (
        "an answer cut before its first token has none"
    )
    assert found["n"] == 3
    assert [prompt for prompt, *_ in plain.read_answers(tmp_path, "plain_")] == ["system: be brief\n\nuser: how?"] * 4
