"""Judges and guards make pairs of a policy's own answers."""

import json

import pytest

from alignlab.cli import main
from alignlab.data.worlds import toy
from alignlab.models.scratch import bpe_tokenizer
from support.checkpoints import save_checkpoint

CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    """A random guard model, which says safe or unsafe by chance."""
    path = tmp_path_factory.mktemp("guard")
    tokenizer = bpe_tokenizer([*toy.VOCABULARY, "safe unsafe " * 9], vocab_size=400)
    tokenizer.add_tokens(["<|user|>", "<|assistant|>"], special_tokens=True)
    tokenizer.chat_template = CHAT
    save_checkpoint(path, tokenizer, seed=3, max_position_embeddings=512, initializer_range=0.3)
    return path


def made(base, tmp_path, *scorer):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in toy.all_prompts()[:24]))
    model = ["model=hf", f"model.path={base.path}", "model.prompt_template=user: {raw_prompt} assistant: "]
    data = ["dataset=prompts", f"dataset.path={file}", "generator.max_new_tokens=10", "trainer.max_length=64"]
    length = ["scorers.better.kind=length", f"hydra.run.dir={tmp_path}/out"]
    where = [f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache"]
    assert main(["algorithm=pairs", *model, *data, *length, *where, *scorer]) == 0
    rows = [
        json.loads(line) for part in (tmp_path / "out" / "rows").iterdir() for line in part.read_text().splitlines()
    ]
    return json.loads((tmp_path / "out" / "result.json").read_text()), rows


def test_a_judge_makes_pairs(base, tmp_path):
    phrases = "scorers.safer.phrases=[the,a,gently]"
    result, rows = made(base, tmp_path, "scorers.safer.kind=judge", "scorers.safer.judge=rules", phrases)
    assert result["pairs"]["labelled"]["safer"] > 0
    assert {score for row in rows for score in row["scores"]["safer"]} <= {0.0, 1.0, None}
    ranked = [row for row in rows if row["labels"]["safer"] != [None, None]]
    assert all(sorted(row["scores"]["safer"]) == [0, 1] for row in ranked), "a tie is no pair"


def test_a_guard_makes_pairs_and_ties_rank_nothing(base, guard, tmp_path):
    words = ["scorers.safer.yes_words=[safe]", "scorers.safer.no_words=[unsafe]", "scorers.safer.dtype=float32"]
    scorer = ["scorers.safer.kind=guard", f"scorers.safer.path={guard}", *words]
    result, rows = made(base, tmp_path, *scorer, "scorers.safer.min_mass=0.0", "algorithm.select=all")
    assert result["pairs"]["pairs"] > 0
    for row in rows:
        one, other = row["scores"]["safer"]
        unknown = one is None or other is None or one == other
        assert (row["labels"]["safer"] == [None, None]) == unknown
