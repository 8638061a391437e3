"""One way to a saved adapter: what does not fit is refused by key, folder and remedy."""

import copy
import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from alignlab.config.schema import PeftConfig
from alignlab.errors import ConfigError
from alignlab.models.adapters import adapter_for, new_adapter, save_adapter, target_modules
from alignlab.models.base import load_base
from alignlab.models.cards import AdapterCard, save_card
from alignlab.models.saved_adapter import match_patterns
from alignlab.models.with_adapter import with_adapter
from support.checkpoints import model_settings
from support.damage import one_bit
from support.saved_adapters import ATTENTION, MAKES, saved

KEY, TEMPLATE, BASE = "algorithm.adapter", "user: {raw_prompt} assistant: ", "base-id"


@pytest.fixture
def folder(base, tmp_path):
    """An adapter with its card."""
    saved(base, tmp_path / "a", MAKES["attention"])
    card = AdapterCard("safer", 0.1, BASE, TEMPLATE, "toy", {"better": 0.0, "safer": 1.0})
    save_card(tmp_path / "a", card)
    return tmp_path / "a"


def found(folder, **changed):
    return adapter_for(KEY, folder, **{"base_id": BASE, "template": TEMPLATE, **changed})


def change(folder, **settings):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    (folder / "alignlab.json").unlink(missing_ok=True)


def test_a_fitting_adapter_is_taken(folder):
    assert (found(folder).beta, found(folder).card.objective) == (0.1, "safer")
    assert found(folder, beta=0.1).beta == 0.1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"base_id": "other"}, rf"{KEY}=.*: was trained on another base model \(base-id, not other\)"),
        ({"template": "Q: {raw_prompt}"}, rf"{KEY}=.*: was trained with model\.prompt_template='user: "),
        ({"beta": 0.2}, r"algorithm\.beta=0\.2: the adapter was trained with beta=0\.1"),
    ],
)
def test_another_base_template_or_beta_is_refused(folder, given, said):
    with pytest.raises(ConfigError, match=said):
        found(folder, **given)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "IA3"}, r"is of PEFT's kind 'IA3'; alignlab applies and merges LORA adapters only"),
        ({"peft_type": "PROMPT_TUNING"}, r"kind 'PROMPT_TUNING'"),
        ({"alora_invocation_tokens": [1]}, r"invocation tokens"),
        ({"task_type": "SEQ_CLS"}, r"is a classifier's; give a policy's"),
        ({"target_modules": r"(\w+\.?)+!"}, r"takes more than [\d.]+ s to match"),
        ({"rank_pattern": {"(.+)+!": 3}}, r"takes more than [\d.]+ s to match"),
        ({"lora_alpha": float("nan")}, r"lora_alpha=nan: must be a finite number, not 0"),
        ({"lora_alpha": 1e40}, r"lora_alpha=1e\+40: must be a finite number, not 0, at most 1e\+06 in size"),
        ({"lora_alpha": None}, r"lora_alpha=None: must be a finite number"),
        ({"alpha_pattern": {"q_proj": float("inf")}}, r"lora_alpha of q_proj=inf: must be a finite number"),
        ({"r": 0}, r"r=0: must be a whole number > 0"),
        ({"rank_pattern": {"q_proj": "four"}}, r"r of q_proj='four': must be a whole number > 0"),
        ({"target_modules": "(q_proj"}, r"is no regular expression"),
    ],
)
def test_other_kinds_and_hostile_patterns_are_refused(folder, monkeypatch, settings, said):
    monkeypatch.setattr("alignlab.models.saved_adapter.SECONDS_TO_MATCH", 0.2)
    change(folder, **settings)
    with pytest.raises(ConfigError, match=rf"^{KEY}={folder}.*{said}"):
        found(folder)


def test_a_regular_expression_that_is_none_of_these_is_taken(base, folder):
    change(folder, target_modules=r"model\.layers\.\d+\.self_attn\.(q|v)_proj")
    assert found(folder).beta is None
    with with_adapter(base.model, folder) as model:
        assert "default" in model.peft_config
    assert match_patterns("x", [r".*\.(q|v)_proj"], ["a.q_proj", "a.k_proj"]) == {"a.q_proj"}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.write_bytes(b""), r"adapter_model\.safetensors: is empty"),
        (lambda file: file.write_bytes(file.read_bytes()[:-7]), r"adapter_model\.safetensors: is truncated"),
        (lambda file: file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), r"Git LFS pointer"),
        (lambda file: file.write_bytes(b"\xff" * 64), r"is no whole safetensors file"),
        (lambda file: file.unlink(), r"holds no adapter_model\.safetensors"),
    ],
)
def test_damaged_weights_are_named(folder, damage, said):
    damage(folder / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match=said):
        found(folder)


def test_one_changed_bit_is_seen(folder):
    file = folder / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"adapter_model\.safetensors was changed or damaged since it was saved"):
        found(folder)
    content[-5] ^= 1
    file.write_bytes(content)
    assert found(folder)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"base": "another"}, r"was trained on another base model \(another, not "),
        ({"prompt_template": "Q: {raw_prompt}"}, r"was trained with model\.prompt_template='Q: "),
        ({"conditioned": True}, r"is a function of w, which nothing but its export applies"),
        ({}, r"adapter_model\.safetensors was changed or damaged since it was saved"),
    ],
)
def test_an_adapter_in_the_base_is_checked_as_any_other(base, folder, changed, said):
    card = AdapterCard("safer", 0.1, base.id, TEMPLATE, "toy", {"better": 0.0, "safer": 1.0})
    save_card(folder, card)
    settings = dataclasses.replace(model_settings(base.path, TEMPLATE), adapter=str(folder))
    assert load_base(settings, folder=None, device="cpu").id == f"{base.id}+{found(folder, base_id=base.id).id}"
    save_card(folder, dataclasses.replace(card, **changed))
    if not changed:
        one_bit(folder / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match=rf"^model\.adapter={folder}.*{said}"):
        load_base(settings, folder=None, device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(base, folder, value):
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[3] = value
    save_file(tensors, file)
    tensor = name.removesuffix(".weight")
    with pytest.raises(ConfigError, match=rf"{tensor}.*: 1 of its \d+ numbers"), with_adapter(base.model, folder):
        pass
    assert not any("lora" in name for name, _ in base.model.named_modules()), "the base model is itself again"


def test_another_vocabulary_is_said_with_its_remedy(base, folder):
    saved(base, folder, {"target_modules": ATTENTION, "modules_to_save": ["embed_tokens"]})
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "embed_tokens" in name)
    more = torch.cat([tensors[name], torch.zeros(2, tensors[name].shape[1])])
    save_file(tensors | {name: more}, file)
    said = rf"vocabulary of {len(more)} tokens, the base model has {len(more) - 2}; resize"
    with pytest.raises(ConfigError, match=said), with_adapter(base.model, folder):
        pass


def test_equal_adapters_have_equal_files(base, tmp_path):
    config = PeftConfig(r=2, alpha=4, dropout=0, target_modules=["v_proj", "q_proj", "k_proj", "o_proj"])
    save_adapter(new_adapter(copy.deepcopy(base.model), config, seed=0), tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["target_modules"] == sorted(config.target_modules)
    assert list(settings) == sorted(settings)


@pytest.mark.parametrize(
    ("given", "taken"),
    [("q_proj", ["q_proj"]), ("all-linear", "all-linear"), (".*_proj", ".*_proj"), (["b", "a"], ["b", "a"])],
)
def test_a_lone_name_is_a_list_of_one(given, taken):
    assert target_modules(PeftConfig(r=2, alpha=4, dropout=0, target_modules=given)) == taken
