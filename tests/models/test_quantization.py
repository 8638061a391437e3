"""A model in 4 bits: loaded, sampled, adapted, and known as another model than the one in full precision."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from alignlab.config.schema import LocalGeneratorConfig
from alignlab.engine.sampling.base import PrefixRequest
from alignlab.engine.sampling.generate import generate
from alignlab.errors import ConfigError
from alignlab.models.adapters import with_adapter
from alignlab.models.base import load_base
from alignlab.models.merge import merge_adapter
from alignlab.models.scratch import bpe_tokenizer
from support.checkpoints import model_settings, save_checkpoint

TEXTS = ["where is the red box it is on the table", "take some flour then add two eggs"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = bpe_tokenizer(TEXTS, 300)
    shape = {"hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.1}
    save_checkpoint(folder, tokenizer, vocab_size=300, **shape)
    return model_settings(folder, "USER: {raw_prompt} ASSISTANT:", name="small", dtype="bfloat16")


def test_nf4(config, tmp_path):
    full = load_base(config, folder=None, device="cpu")
    base = load_base(replace(config, quantization="nf4"), folder=None, device="cpu")
    assert base.id == f"{full.id}+nf4"
    weight = base.model.model.layers[0].mlp.up_proj.weight
    assert (weight.dtype, weight.quant_state.quant_type, weight.quant_state.nested) == (torch.uint8, "nf4", True)
    assert base.model.model.layers[0].mlp.up_proj.compute_dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    ids = torch.tensor([base.encoder.prompt_ids(TEXTS[0])])
    left, right = (model(ids).logits.float().flatten() for model in (full.model, base.model))
    assert torch.corrcoef(torch.stack([left, right]))[0, 1] > 0.8
    assert not left.equal(right)

    how = LocalGeneratorConfig(
        prompts=1, kind="transformers", samples=3, temperature=0.8, top_p=0.9, max_new_tokens=6, batch_size=4
    )
    requests = [PrefixRequest(text, base.encoder.prompt_ids(text), 3) for text in TEXTS]
    found = generate(base.model, requests, config=how, seed=0, encoder=base.encoder)
    assert [len(rows) for rows in found.values()] == [3, 3]

    with pytest.raises(ConfigError, match=r"^algorithm\.adapter=.*cannot be merged into quantised weights"):
        merge_adapter(base.model, tmp_path, dtype=torch.bfloat16)
    fresh = get_peft_model(base.model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    for name, parameter in fresh.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    fresh.save_pretrained(tmp_path)
    fresh.unload()
    with with_adapter(base.model, tmp_path) as model:
        other = generate(model, requests, config=how, seed=0, encoder=base.encoder)
    assert other != found
    after = base.model(ids).logits.float().flatten()  # bitsandbytes rounds otherwise once a CPU model was saved
    assert torch.corrcoef(torch.stack([after, right]))[0, 1] > 0.999


def test_4_bits_of_what_is_stored_in_8_are_refused(config, tmp_path):
    """Transformers would take the 8 bits and only warn. The check of a folder comes before; a hub id has this one."""
    shutil.copytree(config.path, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    stored = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": stored}))
    with pytest.raises(ConfigError, match=r"^model\.quantization=nf4: the weights of .* are quantised already"):
        load_base(replace(config, path=str(tmp_path / "model"), quantization="nf4"), folder=None, device="cpu")
