"""dataset=prompts: prompts of any known set; dataset=scored: responses with scores by objective."""

import json

import pytest

from alignlab.config.identity import objectives_of
from alignlab.data.records import CutText, Turn, pairs_by
from alignlab.data.sources import check_source, load, load_prompts
from alignlab.data.splits import split_of
from alignlab.data.worlds import toy
from alignlab.errors import ConfigError

TALK = (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"))
MESSAGES = [{"role": turn.role, "content": turn.content} for turn in TALK]
KNOWN = {
    "prompt": ({"prompt": "a"}, "a"),
    "messages": ({"messages": MESSAGES}, TALK),
    "messages with an answer": ({"messages": [*MESSAGES, {"role": "assistant", "content": "d"}]}, TALK),
    "PKU-SafeRLHF": ({"prompt": "a", "response_0": "x", "response_1": "y", "safer_response_id": 1}, "a"),
    "SHP": ({"history": "a", "human_ref_A": "x", "human_ref_B": "y"}, "a"),
    "Stack Exchange": ({"question": "a", "response_j": "x"}, "a"),
    "summarize_from_feedback": ({"info": {"post": "a"}, "summaries": []}, "a"),
    "UltraFeedback": ({"instruction": "a", "completions": []}, "a"),
    "HH-RLHF": ({"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d"}, TALK),
    "pairs of conversations": ({"chosen": [*MESSAGES, {"role": "assistant", "content": "d"}]}, TALK),
    "HelpSteer2": ({"prompt": "a\n<extra_id_1>Assistant\nb\n<extra_id_1>User\nc"}, TALK),
    "ShareGPT": ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "a"),
    "Alpaca": ({"instruction": "a", "input": "b", "output": "c"}, "a\n\nb"),
    "JailbreakBench": ({"Goal": "a", "Target": "b", "Category": "x"}, "a"),
    "HarmBench": ({"Behavior": "a", "SemanticCategory": "x"}, "a"),
    "StrongREJECT": ({"forbidden_prompt": "a", "category": "x"}, "a"),
    "with a system turn": ({"system": "s", "prompt": "a"}, (Turn("system", "s"), Turn("user", "a"))),
}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def on(dataset_of, tmp_path):
    return lambda choice, rows, **changes: dataset_of(choice, path=write(tmp_path / "rows.jsonl", rows), **changes)


def prompts_of(config):
    return [prompt for part in load_prompts(config).values() for prompt in part]


@pytest.mark.parametrize("case", KNOWN)
def test_the_prompts_of_known_sets(on, case):
    row, prompt = KNOWN[case]
    assert prompts_of(on("prompts", [row])) == [prompt]


def test_each_prompt_once_and_split_as_pairs_are(on):
    rows = [{"prompt": f"request {number // 2}"} for number in range(200)]
    config = on("prompts", rows, test_share=0.3, dev_share=0.2)
    parts = load_prompts(config)
    assert set(parts) == {"train", "dev", "test"}
    assert sorted(prompts_of(config)) == sorted({row["prompt"] for row in rows})
    assert all(split_of(text, 0.3, dev_share=0.2) == split for split, part in parts.items() for text in part)
    assert load(config).as_record()["left_out"] == {"repeated prompts": 100}


def test_the_prompts_of_pairs_and_of_the_toy(on, dataset_of):
    pairs = [{"prompt": "p", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(3)]
    assert prompts_of(on("pairs", pairs)) == ["p"]
    assert load_prompts(dataset_of("toy")) == {"train": toy.prompts("train"), "test": toy.prompts("test")}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"answer": "a"}, "rows.jsonl:1 prompt: no such column"),
        ({"prompt": " "}, "rows.jsonl:1 prompt: is empty"),
        ({"prompt": "\u200b"}, "holds nothing but zero-width characters"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "rows.jsonl:1 prompt: holds no turn"),
        ({"prompt": "a", "tools": "f"}, "tools: changes what is asked"),
    ],
)
def test_prompts_that_cannot_be_used(on, row, said):
    with pytest.raises(ConfigError) as refused:
        load_prompts(on("prompts", [row]))
    assert said in str(refused.value)


def test_algorithms_that_need_pairs_refuse_prompts_in_a_line(on, run_with, tmp_path):
    config = on("prompts", [{"prompt": "a"}])
    with pytest.raises(ConfigError, match=r"^dataset=prompts: holds prompts and no responses"):
        check_source(config, trained="better")
    with pytest.raises(ConfigError, match=r"^dataset=prompts: .* algorithm=dpo needs pairs; say what scores"):
        objectives_of(run_with("prompts", path=tmp_path / "rows.jsonl"))


SCORED = {"prompt": "p", "responses": ["a", "b", "c"], "scores": {"helpful": [1.5, -1.0, 1.5], "safe": [0, 2, 1]}}


def test_labels_are_the_signs_of_score_differences(on):
    config = on("scored", [SCORED], use=["helpful", "safe"])
    (row,) = load(config).rows
    assert row.scores == {"helpful": (1.5, -1.0, 1.5), "safe": (0.0, 2.0, 1.0)}
    pairs = {name: {(pair.chosen, pair.rejected) for pair in pairs_by([row], name)} for name in row.scores}
    assert pairs == {"helpful": {("a", "b"), ("c", "b")}, "safe": {("b", "a"), ("b", "c"), ("c", "a")}}


def test_a_response_that_was_given_twice_counts_once(on):
    row = {**SCORED, "responses": ["a", " a", "c"]}
    loaded = load(on("scored", [row, {**SCORED, "prompt": "q", "responses": ["a", "a", ""]}], use=["safe"]))
    assert [(found.responses, found.scores) for found in loaded.rows] == [(("a", "c"), {"safe": (0.0, 1.0)})]
    assert loaded.as_record()["left_out"] == {"prompts with fewer than two different responses": 1}


def test_a_response_that_was_cut_stays_one(on):
    """It gets no end token in training, see models/prompts.py."""
    (row,) = load(on("scored", [{**SCORED, "finish": ["stop", "length", "stop"]}], use=["safe"])).rows
    assert [isinstance(response, CutText) for response in row.responses] == [False, True, False]


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"safe": [0, 1, 2]}, "scores.helpful: is missing; choose one of safe"),
        ({"helpful": [0, 1]}, "scores.helpful: must hold one score a response, holds 2 for 3"),
        ({"helpful": [0, 1, float("nan")]}, "scores.helpful.2: must be a finite number"),
        ([0, 1, 2], "scores: must be an object"),
    ],
)
def test_scores_that_cannot_be_used(on, scores, said):
    with pytest.raises(ConfigError) as refused:
        load(on("scored", [{**SCORED, "scores": scores}], use=["helpful"]))
    assert said in str(refused.value)
