"""Every weight comes from the checkpoint: what is missing, damaged or not finite is refused by file and tensor."""

import json
import os
import pickle
import shutil
import types

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from alignlab.config.schema import PretrainedConfig
from alignlab.errors import ConfigError
from alignlab.models.base import load_base, load_encoder
from alignlab.models.checkpoint import check_model_folder
from alignlab.models.loading import load_weights
from alignlab.models.paths import check_folder
from alignlab.rewards.classifier import new_classifier
from support.saved_adapters import MAKES, saved


@pytest.fixture
def copied(base, tmp_path):
    shutil.copytree(base.path, tmp_path / "m")
    return tmp_path / "m"


def settings(folder):
    return PretrainedConfig("hf", "m", "{raw_prompt}", 1e-3, str(folder), None, None, "float32", None, "sdpa")


def load(folder):
    return load_base(settings(folder), folder=None, device="cpu")


def rewrite(folder, change):
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def configure(folder, **changed):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


def test_a_whole_checkpoint_loads(copied):
    check_model_folder("model.path", copied)
    assert load(copied).model.config.num_hidden_layers == 2


NORM = "model.layers.1.input_layernorm.weight"
WITHOUT_TORCH = {
    "module.*": (lambda t: {f"module.{name}": value for name, value in t.items()}, r"named module\.\*.*model\.module"),
    "one layer": (lambda t: {n: v for n, v in t.items() if ".layers.1." not in n}, r"hold no layer 1; config\.json"),
    "no head": (lambda t: {n: v for n, v in t.items() if n != "lm_head.weight"}, r"no lm_head\.weight.*tie_word"),
    "an adapter": (lambda t: {f"{n}.lora_A.weight": v for n, v in t.items()}, r"holds an adapter's tensors"),
}


@pytest.mark.parametrize("case", WITHOUT_TORCH)
def test_names_that_do_not_fit_are_seen_in_the_header(copied, case):
    change, said = WITHOUT_TORCH[case]
    rewrite(copied, change)
    with pytest.raises(ConfigError, match=rf"model\.path={copied}: .*{said}"):
        check_model_folder("model.path", copied)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.write_bytes(b""), "model.safetensors: is empty"),
        (lambda file: file.write_bytes(file.read_bytes()[:5000]), "model.safetensors: is truncated|no whole"),
        (lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\noid x\n"), "is a Git LFS pointer"),
        (lambda file: file.write_bytes(b"\x00" * 5000), "is no whole safetensors file"),
        (lambda file: file.unlink(), "holds no weights"),
    ],
)
def test_a_damaged_file_is_named(copied, damage, said):
    damage(copied / "model.safetensors")
    with pytest.raises(ConfigError, match=said):
        check_model_folder("model.path", copied)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.int8, torch.bool])
def test_weights_without_their_scales_are_refused(copied, kind):
    rewrite(copied, lambda t: t | {NORM: torch.ones(32).to(kind)})
    with pytest.raises(ConfigError, match=rf"model\.safetensors: the tensor {NORM} is of type .*; give the"):
        check_model_folder("model.path", copied)
    configure(copied, quantization_config={"quant_method": "fp8"})
    check_model_folder("model.path", copied)


def test_whole_numbers_that_are_no_weights_are_taken(copied):
    rewrite(copied, lambda t: t | {"model.position_ids": torch.arange(9)})
    check_model_folder("model.path", copied)


def test_two_sets_of_weights_are_refused(copied):
    names = dict.fromkeys(load_file(copied / "model.safetensors"), "part.safetensors")
    shutil.copy(copied / "model.safetensors", copied / "part.safetensors")
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ConfigError, match=r"holds model\.safetensors and the shards of .*; delete the one"):
        check_model_folder("model.path", copied)
    (copied / "model.safetensors").unlink()
    check_model_folder("model.path", copied)


def test_an_adapter_beside_the_weights_is_refused(base, copied):
    """Transformers would load it too."""
    saved(base, copied, MAKES["attention"])
    with pytest.raises(ConfigError, match=r"holds a model and an adapter; move adapter_config\.json and its weights"):
        check_model_folder("model.path", copied)


def test_an_adapter_that_the_hub_holds_beside_the_weights_is_refused():
    loaded = types.SimpleNamespace(peft_config={"default": None}), {"missing_keys": [], "mismatched_keys": []}
    with pytest.raises(ConfigError, match=r"model\.path=owner/name: holds a model and an adapter"):
        load_weights("model.path", lambda *_, **__: loaded, "owner/name")


def test_an_adapter_or_a_folder_above_one_is_told_apart(base, tmp_path):
    saved(base, tmp_path / "run" / "adapter", MAKES["attention"])
    with pytest.raises(ConfigError, match=r"holds no config\.json; it is an adapter's: give the model that it was"):
        check_folder("model.path", f"{tmp_path}/run/adapter", "config.json")
    with pytest.raises(ConfigError, match=r"holds no adapter_config\.json; did you mean .*/run/adapter\?"):
        check_folder("algorithm.adapter", f"{tmp_path}/run", "adapter_config.json")


@pytest.mark.parametrize("text", ["", "[]", "\ufeff{}"])
def test_a_config_that_is_none_is_not_taken_for_the_tokenizers_fault(copied, text):
    (copied / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json: (not JSON|must be a JSON object)"):
        load_encoder(settings(copied), folder=None)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"auto_map": {"AutoModel": "x.Y"}}, "needs code of its own"),
        ({"_attn_implementation": "evil/kernel"}, "names a kernel of the hub"),
        ({"text_config": {"_attn_implementation_internal": "evil/kernel"}}, "names a kernel of the hub"),
    ],
)
def test_code_and_kernels_are_refused(copied, changed, said):
    configure(copied, **changed)
    with pytest.raises(ConfigError, match=said):
        check_model_folder("model.path", copied)


def test_one_missing_tensor_is_refused_at_load(copied):
    rewrite(copied, lambda t: {name: value for name, value in t.items() if name != NORM})
    with pytest.raises(ConfigError, match=rf"lacks {NORM}; such weights would be random"):
        load(copied)


def test_another_shape_is_refused(copied):
    rewrite(copied, lambda t: t | {NORM: torch.ones(3)})
    with pytest.raises(ConfigError, match="layernorm"):
        load(copied)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(copied, value):
    def spoil(tensors):
        tensors[NORM][2] = value
        return tensors

    rewrite(copied, spoil)
    with pytest.raises(ConfigError, match=rf"{NORM} is damaged: 1 of its 32 numbers"):
        load(copied)


def test_tensors_without_a_use_are_named(copied, capsys):
    rewrite(copied, lambda t: t | {"extra.weight": torch.ones(2)})
    load(copied)
    assert "no use for: extra.weight" in capsys.readouterr().out


def test_a_new_head_is_said(copied, capsys):
    new_classifier(str(copied), revision=None, dtype=torch.float32, seed=0)
    assert "new weights, made at random: score.weight" in capsys.readouterr().out
    rewrite(copied, lambda t: {name: value for name, value in t.items() if name != NORM})
    with pytest.raises(ConfigError, match="lacks"):
        new_classifier(str(copied), revision=None, dtype=torch.float32, seed=0)


class Touches:
    """Makes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def test_pickled_code_is_refused_and_never_run(copied, tmp_path):
    (copied / "model.safetensors").unlink()
    (copied / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Touches(tmp_path / "ran")}))
    with pytest.raises(ConfigError, match=rf"model\.path={copied}: its weights are pickled with more than tensors"):
        load(copied)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"num_attention_heads": 5},
        {"pad_token_id": 5000},
        {"rope_parameters": {"rope_type": "yarn", "factor": "x", "rope_theta": 10000.0}},
        {"hidden_act": "nosuch"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_config_that_makes_no_model_is_refused(copied, changed):
    configure(copied, **changed)
    with pytest.raises(ConfigError, match=rf"model\.path={copied}: "):
        load(copied)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(base, copied):
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    size = base.model.get_input_embeddings().weight.shape[0]
    tokenizer.add_tokens([f"<more {number}>" for number in range(size)])
    tokenizer.save_pretrained(copied)
    with pytest.raises(ConfigError, match=r"tokens beyond the model's \d+ embeddings, the first is '<more .*; resize"):
        load(copied)


def test_a_padding_token_beyond_the_model_is_not_read(base, copied):
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    tokenizer.save_pretrained(copied)
    loaded = load(copied)
    assert loaded.tokenizer.pad_token_id == loaded.tokenizer.eos_token_id
