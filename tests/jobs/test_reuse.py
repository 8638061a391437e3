"""What the jobs of one process share: the base model, the tokens, and every score; and when they must not."""

import json
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from alignlab.cli import main
from alignlab.data.worlds import toy
from alignlab.models.prompts import PromptEncoder
from alignlab.prerequisites import models as prerequisites


@pytest.fixture
def root(base, tmp_path):
    """Rows of two objectives, a model's folder, and where runs and cache go."""
    rng = random.Random(0)
    rows = []
    for number, prompt in enumerate(toy.all_prompts()[:24]):
        row = {"prompt": prompt, "response_0": toy.demonstration(prompt, rng), "response_1": f"{prompt} {number}"}
        labels = {"better_response_id": number % 2, "safer_response_id": number % 3 == 0}
        rows.append(row | {name: int(label) for name, label in labels.items()})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copytree(base.path, tmp_path / "model")
    prerequisites.forget_models()
    yield tmp_path
    prerequisites.forget_models()


@pytest.fixture
def counted(monkeypatch):
    """How often a base model was loaded, and how many texts were tokenised."""
    counts = {"loaded": 0, "texts": 0}
    load, tokens_of = prerequisites.load_base, PromptEncoder._tokens_of

    def counting_load(*given, **named):
        counts["loaded"] += 1
        return load(*given, **named)

    def counting_tokens(self, texts):
        counts["texts"] += len(texts)
        return tokens_of(self, texts)

    monkeypatch.setattr(prerequisites, "load_base", counting_load)
    monkeypatch.setattr(PromptEncoder, "_tokens_of", counting_tokens)
    return counts


def run(root, *overrides):
    settings = [
        "model=hf",
        f"model.path={root}/model",
        "model.prompt_template='user: {raw_prompt} assistant: '",
        "dataset=pku_saferlhf",
        f"dataset.path={root}/rows.jsonl",
        "dataset.split=null",
        "trainer.max_steps=2",
        "trainer.per_device_train_batch_size=4",
        "trainer.logging_steps=1",
        f"paths.runs={root}/runs",
        f"paths.cache={root}/cache",
    ]
    assert main([*settings, *overrides]) == 0


def result_of(root, w):
    """The newest result at a weight."""
    files = sorted(root.glob(f"runs/modpo/hf/*/w={w}/*/result.json"), key=lambda file: file.stat().st_mtime_ns)
    return json.loads(files[-1].read_text())


def test_the_second_weight_loads_tokenises_and_scores_nothing(root, counted):
    run(root, "w=0.6")
    first = dict(counted)
    assert first["loaded"] == 1  # for the reward that had to be made, and for the run itself
    assert first["texts"] <= 24 + 2 * 24  # each prompt and each response once, whichever objective ranks them
    rows = result_of(root, "0.6")["cache"]
    assert rows["safer"]["computed"] == 48
    run(root, "w=0.7")
    assert counted == first
    rows = result_of(root, "0.7")["cache"]
    assert {name: count["computed"] for name, count in rows.items()} == {"reference": 0, "safer": 0}
    assert min(count["reused"] for count in rows.values()) == 48


def test_a_reward_that_was_made_by_hand_is_found(root, counted):
    """`algorithm=reward_model` names no objective; the one that it trains is what the next run needs."""
    run(root, "algorithm=reward_model")
    assert len(list(root.glob("runs/reward_model/*/*/*"))) == 1
    run(root, "w=0.6")
    assert len(list(root.glob("runs/reward_model/*/*/*"))) == 1


def test_weights_changed_in_place_are_loaded_again(root, counted):
    run(root, "w=0.6")
    (file,) = (root / "model").glob("*.safetensors")
    weights = load_file(file)
    weights["lm_head.weight"] += 0.1 * torch.randn_like(weights["lm_head.weight"])
    save_file(weights, file, metadata={"format": "pt"})
    before = result_of(root, "0.6")
    run(root, "w=0.6")
    after = result_of(root, "0.6")
    assert counted["loaded"] == 2
    assert after["inputs"]["model"] != before["inputs"]["model"]
    assert after["cache"]["safer"]["computed"] == 48


def test_a_base_adapter_changed_in_place_is_merged_again(root, counted):
    run(root, "algorithm=dpo")
    (made,) = root.glob("runs/dpo/**/adapter")
    without_card = shutil.ignore_patterns("alignlab.json")  # which would refuse the changed weights
    folder = shutil.copytree(made, root / "first_adapter", ignore=without_card)
    given = ("algorithm=dpo", f"model.adapter={folder}")
    run(root, *given)
    run(root, *given, "seed=1")
    assert counted["loaded"] == 2  # control: it stays while its adapter does
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name: value + 0.1 for name, value in weights.items()}, folder / "adapter_model.safetensors")
    run(root, *given)
    assert counted["loaded"] == 3


def test_another_template_tokenises_anew(root, counted):
    run(root, "w=0.6")
    first = counted["texts"]
    run(root, "w=0.6", "model.prompt_template='user: please {raw_prompt} assistant: '")
    assert counted["loaded"] == 2
    assert counted["texts"] == 2 * first
