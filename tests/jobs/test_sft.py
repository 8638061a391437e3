"""`algorithm=sft`: which responses are learned, and what the held-out loss is."""

import json
import math

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignlab.cli import main
from alignlab.data.records import RankedRow
from alignlab.data.worlds import toy
from alignlab.jobs.sft import ranked_responses

SMALL = ["model.pretraining.rows=640", "dataset.pairs=120", "trainer.max_steps=4", "trainer.logging_steps=1"]


def row(**scores):
    return RankedRow("p", ("worst", "middle", "best"), scores)


@pytest.mark.parametrize(
    ("scores", "chosen", "both"),
    [
        ((0, 1, 2), ["best"], ["worst", "middle", "best"]),
        ((0, 2, 2), ["middle", "best"], ["worst", "middle", "best"]),
        ((None, 1, 2), ["best"], ["middle", "best"]),
        ((1, 1, 1), [], []),
        ((None, None, 2), [], []),
    ],
)
def test_which_responses(scores, chosen, both):
    assert ranked_responses(row(better=scores), "better", all_of_them=False) == chosen
    assert ranked_responses(row(better=scores), "better", all_of_them=True) == both
    assert ranked_responses(row(better=scores), "safer", all_of_them=True) == []


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("sft")


def train(root, name, *overrides):
    out = root / name
    paths = [f"paths.runs={root}/runs", f"paths.cache={root}/cache", f"hydra.run.dir={out}"]
    assert main(["algorithm=sft", *SMALL, *paths, *overrides]) == 0
    return json.loads((out / "result.json").read_text()), out


def test_the_held_out_loss_is_the_plain_one(root):
    result, out = train(root, "chosen")
    (base,) = (path.parent for path in root.glob("cache/references/*/config.json"))
    tokenizer = AutoTokenizer.from_pretrained(base)
    (pairs,) = root.glob("cache/toy/pairs-*.jsonl")
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    held_out = [row for row in rows if row["prompt"] in set(toy.prompts("test"))]
    losses = {}
    for name in ("loss_before", "held_out_loss"):
        model = AutoModelForCausalLM.from_pretrained(base)
        model = (PeftModel.from_pretrained(model, out / "adapter") if name == "held_out_loss" else model).eval()
        total, tokens = 0.0, 0
        for row in held_out:
            prompt = tokenizer(f"user: {row['prompt']} assistant: ")["input_ids"]
            response = tokenizer(row[f"response_{row['better_response_id']}"], add_special_tokens=False)["input_ids"]
            ids = [*prompt, *response, tokenizer.eos_token_id]
            with torch.no_grad():
                logps = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
            total -= sum(float(logps[at - 1, ids[at]]) for at in range(len(prompt), len(ids)))
            tokens += len(response) + 1
        losses[name] = total / tokens
        assert result["metrics"][name]["mean"] == pytest.approx(losses[name], abs=1e-5)
        assert result["metrics"][name]["n"] == len(held_out)
    assert losses["loss_before"] != pytest.approx(losses["held_out_loss"], abs=1e-4)
    assert result["metrics"]["perplexity"]["mean"] == pytest.approx(math.exp(losses["held_out_loss"]), abs=1e-4)


def test_both_learns_twice_as_many_and_another_objective_others(root):
    chosen, _ = train(root, "chosen")
    both, _ = train(root, "both", "algorithm.responses=both")
    safer, _ = train(root, "safer", "algorithm.objective=safer")
    assert both["rows"]["train"] == 2 * chosen["rows"]["train"] == 2 * safer["rows"]["train"]
    losses = [result["metrics"]["loss_before"]["mean"] for result in (chosen, both, safer)]
    assert len(set(losses)) == 3


def test_a_limit_leaves_out_and_cuts(root):
    whole, _ = train(root, "chosen")
    cut, _ = train(root, "cut", "trainer.max_length=20", "dataset.on_long=cut")
    dropped, _ = train(root, "dropped", "trainer.max_length=20")
    assert whole["rows"]["cut"] == whole["rows"]["too_long"] == 0
    assert 0 < cut["rows"]["cut"] <= cut["rows"]["train"] == whole["rows"]["train"]
    assert dropped["rows"]["train"] == cut["rows"]["train"] - cut["rows"]["cut"]
    assert (dropped["rows"]["cut"], dropped["rows"]["too_long"]) == (0, cut["rows"]["cut"])
    assert cut["metrics"]["held_out_loss"]["mean"] != pytest.approx(whole["metrics"]["held_out_loss"]["mean"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("algorithm.responses=rejected", "algorithm.responses=rejected: choose one of both, chosen"),
        ("algorithm.objective=nicer", "algorithm.objective=nicer: no such objective"),
    ],
)
def test_refused(root, capfd, override, said):
    assert main(["algorithm=sft", *SMALL, f"paths.cache={root}/cache", override]) == 2
    assert said in capfd.readouterr().err


def test_nothing_that_fits_is_refused(root, capfd):
    out = [f"paths.runs={root}/runs", f"paths.cache={root}/cache"]
    assert main(["algorithm=sft", *SMALL, *out, "trainer.max_length=5"]) == 2
    assert "trainer.max_length=5: none of" in capfd.readouterr().err
