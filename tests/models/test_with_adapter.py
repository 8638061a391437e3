"""Adapters made elsewhere, of any make: scored as PEFT itself computes them, and gone without a trace."""

import copy
import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from alignlab.engine.scoring.logps import response_logps
from alignlab.errors import ConfigError
from alignlab.models.adapters import adapter_id
from alignlab.models.with_adapter import with_adapter
from support.saved_adapters import MAKES, saved


def plain_logps(model, rows):
    """Whole logits, one row at a time, in float64 from the logits on."""
    found = []
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row.prompt_ids + row.response_ids])
            logps = torch.log_softmax(model(ids).logits[0].double(), dim=-1)
            start = len(row.prompt_ids)
            found.append(logps[start - 1 : -1].gather(1, ids[0, start:, None]).sum())
    return torch.stack(found)


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES.keys())
def test_any_lora_scores_as_peft_computes_it(base, encoded_rows, tmp_path, make):
    folder, rows = saved(base, tmp_path / "a", make), encoded_rows[:6]
    wanted = plain_logps(PeftModel.from_pretrained(copy.deepcopy(base.model), folder).eval(), rows)
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    with with_adapter(base.model, folder) as model:
        got = response_logps(model, rows, batch_size=4, label="")
    torch.testing.assert_close(got, wanted, rtol=0, atol=2e-5)
    assert (wanted - plain_logps(base.model, rows)).abs().max() > 0.01, "the adapter changes something"
    after = base.model.state_dict()
    assert list(after) == list(before)
    assert all(after[name].equal(before[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_what_scales_an_adapter_is_part_of_what_it_is(base, tmp_path):
    folder = saved(base, tmp_path / "a", MAKES["attention"])
    before = adapter_id(folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "elsewhere"}))
    assert adapter_id(folder) == before
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 16}))
    assert adapter_id(folder) != before


@pytest.mark.parametrize(("named", "is_said"), [("org/Other-7B", True), ("org/{name}", False), (None, False)])
def test_another_base_of_the_same_shape_is_said_once(base, tmp_path, capsys, named, is_said):
    folder = saved(base, tmp_path / "a", MAKES["attention"])
    settings = json.loads((folder / "adapter_config.json").read_text())
    named = named and named.format(name=Path(base.model.config.name_or_path).name)
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": named}))
    for _ in range(2):
        with with_adapter(base.model, folder):
            pass
    said = capsys.readouterr()
    assert (said.out + said.err).count(f"was trained on {named} by its adapter_config.json") == is_said


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        (lambda key: key.replace("layers.1.", "layers.7."), "does not fit the base model"),
        (lambda key: key.replace("q_proj", "k_proj"), "does not fit the base model"),
    ],
)
def test_an_adapter_for_another_model_is_refused(base, tmp_path, rename, said):
    folder = saved(base, tmp_path / "a", MAKES["attention"])
    file = folder / "adapter_model.safetensors"
    save_file({rename(key): value for key, value in load_file(file).items()}, file)
    with pytest.raises(ConfigError, match=said), with_adapter(base.model, folder):
        pass


def test_more_layers_than_the_model_has_are_refused(base, tmp_path):
    folder = saved(base, tmp_path / "a", MAKES["attention"])
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    more = {key.replace("layers.1.", "layers.2."): value.clone() for key, value in tensors.items()}
    save_file(tensors | more, file)
    with (
        pytest.raises(ConfigError, match=r"has no layer for base_model.model.model.layers.2.*name the base"),
        with_adapter(base.model, folder),
    ):
        pass


@pytest.mark.parametrize(
    ("make", "part"), [("trained tokens", "token"), ("a trained head", "lm_head"), ("dora", "magn")]
)
def test_whatever_the_adapter_holds_must_be_finite(base, tmp_path, make, part):
    folder = saved(base, tmp_path / "a", MAKES[make])
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if part in name)
    tensors[name].view(-1)[0] = float("inf")
    save_file(tensors, file)
    with pytest.raises(ConfigError) as refused, with_adapter(base.model, folder, key="algorithm.adapters.better"):
        pass
    assert str(refused.value).startswith(f"algorithm.adapters.better={folder}: the tensor {name} is damaged: 1 of its")


def test_a_setting_that_this_peft_ignores_is_refused_where_it_is_on(base, tmp_path):
    folder = saved(base, tmp_path / "a", MAKES["attention"])
    file = folder / "adapter_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"use_future": False, "future_config": None}))
    with with_adapter(base.model, folder):
        pass
    file.write_text(json.dumps(settings | {"use_future": True}))
    with pytest.raises(ConfigError, match=r"sets use_future, which this version of PEFT ignores; upgrade PEFT"):
        with_adapter(base.model, folder).__enter__()


LEFT = {
    "a tensor of no layer": {"base_model.model.extra.weight": torch.ones(2)},
    "tokens that the settings do not name": {
        "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": torch.ones(1, 32)
    },
}


@pytest.mark.parametrize("case", LEFT)
def test_a_tensor_that_nothing_takes_is_refused(base, tmp_path, case):
    folder = saved(base, tmp_path / "a", MAKES["attention"])
    file = folder / "adapter_model.safetensors"
    save_file(load_file(file) | LEFT[case], file, metadata={"format": "pt"})
    (name,) = LEFT[case]
    with pytest.raises(ConfigError, match=f"which has no layer for {name}"), with_adapter(base.model, folder):
        pass


def test_an_adapter_in_whole_numbers_is_refused(base, tmp_path):
    folder = saved(base, tmp_path / "a", MAKES["attention"])
    file = folder / "adapter_model.safetensors"
    save_file({name: value.to(torch.int8) for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="is of type I8"), with_adapter(base.model, folder):
        pass
