"""`algorithm=merge` from the command line: an ordinary model folder, with an account of the cast."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from alignlab.cli import main
from alignlab.models.scratch import word_tokenizer
from support.checkpoints import save_checkpoint

WORDS = ["user", "assistant", "turn", "the", "red", "widget", "now"]
CHAT = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def adapter(root, name, *, scale=0.05, task="CAUSAL_LM", **settings):
    """A PEFT folder with random weights."""
    torch.manual_seed(0)
    kind = AutoModelForCausalLM if task == "CAUSAL_LM" else AutoModelForSequenceClassification
    options = {} if task == "CAUSAL_LM" else {"num_labels": 1}
    model = get_peft_model(
        kind.from_pretrained(root / "base", **options),
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], task_type=task, **settings),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn_like(parameter))
    model.save_pretrained(root / name)
    return model.eval()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base model with a chat template, and adapters on it."""
    folder = tmp_path_factory.mktemp("merge")
    tokenizer = word_tokenizer(WORDS)
    tokenizer.chat_template = CHAT
    save_checkpoint(folder / "base", tokenizer, vocab_size=32)
    return folder


def merge(root, *overrides):
    given = [f"paths.runs={root}/runs", f"paths.cache={root}/cache", "force=true"]
    return main(["algorithm=merge", "model=hf", f"model.path={root}/base", *given, *overrides])


def ids(root):
    return AutoTokenizer.from_pretrained(root / "base")("turn the red widget now", return_tensors="pt")["input_ids"]


def test_the_merged_folder_is_the_adapted_model(root):
    adapted = adapter(root, "policy", use_rslora=True)
    out = root / "out"
    assert merge(root, f"algorithm.adapter={root}/policy", f"hydra.run.dir={out}") == 0
    again = AutoModelForCausalLM.from_pretrained(out / "model").eval()
    torch.testing.assert_close(again(ids(root)).logits, adapted(ids(root)).logits, rtol=1e-5, atol=1e-5)
    base = AutoModelForCausalLM.from_pretrained(root / "base").eval()
    assert (again(ids(root)).logits - base(ids(root)).logits).abs().max() > 1e-2
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    assert tokenizer.chat_template == CHAT
    assert (
        tokenizer("red widget")["input_ids"] == AutoTokenizer.from_pretrained(root / "base")("red widget")["input_ids"]
    )
    result = json.loads((out / "result.json").read_text())
    assert result["artifacts"] == {"model": "model"}
    assert result["cast"]["share_lost"] == 0
    card = json.loads((out / "model" / "alignlab.json").read_text())["merged"]
    assert card["base"] == result["inputs"]["model"]
    assert card["dtype"] == "float32"


def test_the_merged_folder_is_a_model_for_any_run(root):
    adapter(root, "policy")
    assert merge(root, f"algorithm.adapter={root}/policy", f"hydra.run.dir={root}/again") == 0
    given = [f"model.path={root}/again/model", "algorithm.adapter=" + f"{root}/policy", "algorithm.dtype=float16"]
    assert merge(root, *given, f"hydra.run.dir={root}/twice") == 0


def test_a_cast_is_reported(root, capfd):
    adapter(root, "small", scale=1e-3)
    out = root / "cast"
    assert merge(root, f"algorithm.adapter={root}/small", "algorithm.dtype=bfloat16", f"hydra.run.dir={out}") == 0
    assert "cast to bfloat16: the error is" in capfd.readouterr().out
    cast = json.loads((out / "result.json").read_text())["cast"]
    assert cast["share_lost"] > 0.5
    assert len(cast["layers"]) == 4
    assert max(layer["max_lost"] for layer in cast["layers"]) == cast["max_lost"]
    assert AutoModelForCausalLM.from_pretrained(out / "model").dtype == torch.bfloat16


def test_layers_that_the_adapter_holds_whole_are_named(root, capfd):
    adapter(root, "whole", modules_to_save=["lm_head", "embed_tokens"])
    out = root / "whole_out"
    assert merge(root, f"algorithm.adapter={root}/whole", "algorithm.dtype=bfloat16", f"hydra.run.dir={out}") == 0
    assert "in the place of the base model's: lm_head.weight, model.embed_tokens.weight" in capfd.readouterr().out
    cast = json.loads((out / "result.json").read_text())["cast"]
    assert cast["replaced"] == ["lm_head.weight", "model.embed_tokens.weight"]
    assert {layer["name"] for layer in cast["layers"]} > set(cast["replaced"])


def test_a_classifier_keeps_its_head(root):
    adapted = adapter(root, "judge", task="SEQ_CLS")
    out = root / "classifier"
    assert merge(root, f"algorithm.adapter={root}/judge", f"hydra.run.dir={out}") == 0
    again = AutoModelForSequenceClassification.from_pretrained(out / "model").eval()
    assert isinstance(adapted, PeftModel)
    torch.testing.assert_close(again(ids(root)).logits, adapted(ids(root)).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "is of PEFT's kind 'PREFIX_TUNING'"),
        ({"alora_invocation_tokens": [3]}, "works from its invocation tokens on"),
    ],
)
def test_what_cannot_be_merged_is_refused(root, tmp_path, capfd, settings, said):
    (tmp_path / "adapter_model.safetensors").touch()
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"} | settings))
    assert merge(root, f"algorithm.adapter={tmp_path}") == 2
    assert said in capfd.readouterr().err


def test_an_adapter_of_another_base_is_refused(root, capfd):
    adapter(root, "foreign")
    card = {
        "objective": "better",
        "beta": 1.0,
        "base": "another",
        "prompt_template": None,
        "dataset": "d",
        "weights": {},
    }
    (root / "foreign" / "alignlab.json").write_text(json.dumps(card))
    out = root / "refused"
    assert merge(root, f"algorithm.adapter={root}/foreign", f"hydra.run.dir={out}") == 2
    assert "was trained on another base model (another" in capfd.readouterr().err
    assert not (out / "model").exists()


def test_no_adapter_no_merge(root, capfd):
    assert merge(root) == 2
    assert "algorithm.adapter=null: must name the folder" in capfd.readouterr().err
