"""A checkpoint, a setting or a machine that cannot do: exit code 2 and one line, before any weight is loaded."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from alignlab.checks.preflight import LLAMA_LAYERS
from alignlab.cli import main
from alignlab.models.lora_layers import layers_by_config, layers_of
from alignlab.models.scratch import bpe_tokenizer
from support.checkpoints import save_checkpoint
from support.commands import REPOSITORY

CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHAT
ROW = {"prompt": "lift the red box", "chosen": "it is done", "rejected": "it is not"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tiny checkpoint with a chat template, and rows with and without a system turn."""
    folder = tmp_path_factory.mktemp("refusals")
    tokenizer = bpe_tokenizer([" ".join(ROW.values()), "user assistant system yes no"], vocab_size=300)
    tokenizer.chat_template = CHAT
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    save_checkpoint(folder / "model", tokenizer, vocab_size=300, max_position_embeddings=256, **shape)
    rows = [{**ROW, "prompt": f"{ROW['prompt']} {number}"} for number in range(12)]
    for name, more in (("rows", {}), ("system", {"system": "be kind"})):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row | more) + "\n" for row in rows))
    return folder


def changed(folder, name, text):
    (folder / name).write_text(text)


def without_eos(folder):
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    changed(folder, "tokenizer_config.json", json.dumps(settings))


def several(folder):
    (folder / "additional_chat_templates").mkdir()
    for name in ("rag", "tool_use"):
        changed(folder, f"additional_chat_templates/{name}.jinja", CHAT)
    (folder / "chat_template.jinja").unlink()


def without_tokenizer(folder):
    for file in folder.glob("*token*"):
        file.unlink()


CHECKPOINTS = {
    "no end": (without_eos, "its tokenizer has no EOS token"),
    "no template": (lambda f: (f / "chat_template.jinja").unlink(), "has no chat template; give a text with"),
    "several": (several, "has no default among rag, tool_use; name one `default`"),
    "drops": (lambda f: changed(f, "chat_template.jinja", "hi {{ eos_token }}"), "drops the user's request; set"),
    "no jinja": (lambda f: changed(f, "chat_template.jinja", "{% for m in"), "is no valid template"),
    "no tokenizer": (without_tokenizer, "the folder holds no tokenizer; save it there"),
    "half a tokenizer": (lambda f: changed(f, "tokenizer.json", "{"), "its tokenizer cannot be loaded"),
}
READERS = [("dpo", case) for case in CHECKPOINTS] + [(name, "several") for name in ("sft", "reward_model", "judge")]


@pytest.fixture
def refused(root, tmp_path, capsys, monkeypatch):
    """What a command says that must end with 2 and one line, before a weight is loaded."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))

    def no_load(*_, **__):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("alignlab.models.base.load_weights", no_load)

    def run(*given, rows="rows"):
        data = () if "dataset=toy" in given else ("dataset=pairs", f"dataset.path={root}/{rows}.jsonl")
        own = () if any(one.startswith("model") for one in given) else ("model=hf", f"model.path={root}/model")
        code = main([*data, *own, *given])
        said = capsys.readouterr().err
        assert code == 2, said
        assert len(said.splitlines()) == 1, said
        return said

    return run


@pytest.mark.parametrize(("algorithm", "case"), READERS)
def test_a_checkpoint_that_cannot_be_used(refused, root, tmp_path, algorithm, case):
    change, said = CHECKPOINTS[case]
    folder = tmp_path / "changed"
    shutil.copytree(root / "model", folder)
    change(folder)
    if algorithm == "judge":
        given = ("algorithm=course_correction", "dataset=toy", "judge=local", f"judge.path={folder}")
    else:
        given = (f"algorithm={algorithm}", "model=hf", f"model.path={folder}")
    assert said in refused(*given)


@pytest.mark.parametrize("algorithm", ["dpo", "sft", "reward_model"])
def test_a_role_that_the_template_refuses_is_named_by_row(refused, root, tmp_path, algorithm):
    folder = tmp_path / "changed"
    shutil.copytree(root / "model", folder)
    changed(folder, "chat_template.jinja", NO_SYSTEM)
    said = refused(f"algorithm={algorithm}", "model=hf", f"model.path={folder}", rows="system")
    assert "system.jsonl:" in said
    assert "System role not supported" in said
    assert "put the system turn's words into the first user turn" in said


@pytest.mark.parametrize(
    "given",
    [
        ["algorithm=reward_model", "algorithm.kind=probe"],
        ["algorithm=evaluate", "scorers.preferred.kind=probe"],
    ],
)
def test_a_probe_needs_three_prompts(refused, root, given):
    """However many pairs there are of each, and whichever run needs the probe."""
    rows = [{**ROW, "prompt": f"{ROW['prompt']} {number % 2}", "rejected": f"it is {number}"} for number in range(9)]
    (root / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = refused(*given, "dataset.split=null", rows="few")
    assert "few.jsonl: ranks responses to 2 prompts by preferred; a probe needs 3 or more" in said


SETTINGS = {
    "peft.target_modules=q_prj": "peft.target_modules=q_prj: the model has no such module; did you mean q_proj?",
    "peft.target_modules=[q_proj,nope]": "peft.target_modules=nope: the model has no such module",
    "peft.target_modules=[norm]": "peft.target_modules=norm: the model has no such module",
    "model.prompt_template={system} {raw_prompt}": "{system} is filled by nothing; {raw_prompt} is",
}


@pytest.mark.parametrize("given", SETTINGS)
def test_a_setting_that_cannot_be_used(refused, given):
    assert SETTINGS[given] in refused("algorithm=dpo", given)


SMALL_EXPERTS = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "moe_intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 300,
}
EXPERTS = {
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
}


@pytest.mark.parametrize("kind", EXPERTS)
def test_names_that_experts_have_not(refused, root, tmp_path, capsys, kind):
    """Experts' tensors are joined as they load, so neither they nor the router are linear layers."""
    folder = tmp_path / "experts"
    shutil.copytree(root / "model", folder)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL_EXPERTS, **EXPERTS[kind]))
    model.save_pretrained(folder)
    capsys.readouterr()  # its bar
    for name in ("q_prj", "gate_proj", "gate", "experts"):
        said = refused("algorithm=dpo", "model=hf", f"model.path={folder}", f"peft.target_modules={name}")
        assert f"peft.target_modules={name}: the model has no such module" in said
        assert ("did you mean q_proj?" in said) == (name == "q_prj")
    layers = set(layers_of(model))
    assert layers == set(layers_by_config(folder)), "the control: what is built without weights is the model"
    assert {layer.rpartition(".")[2] for layer in layers} >= {"q_proj", "o_proj", "lm_head"}


@pytest.mark.parametrize("kind", ["tiny", "scratch"])
@pytest.mark.parametrize("name", ["q_prj", "[q_proj,mlp]", "self_attn.q_proj2"])
def test_names_that_a_model_from_scratch_has_not(refused, kind, name):
    data = "dataset=toy" if kind == "tiny" else "dataset=pairs"
    said = refused("algorithm=dpo", f"model={kind}", data, f"peft.target_modules={name}")
    assert f"peft.target_modules={name.strip('[]').split(',')[-1]}: the model has no such module" in said


def test_a_model_from_scratch_has_the_layers_that_are_said(root):
    model = AutoModelForCausalLM.from_pretrained(root / "model")
    assert {name.rpartition(".")[2] for name in layers_of(model)} == {name.rpartition(".")[2] for name in LLAMA_LAYERS}
    assert all(
        any(layer.endswith(f".{name}") for layer in LLAMA_LAYERS) for name in ("self_attn.q_proj", "mlp.up_proj")
    )


def test_a_path_with_a_comma_is_to_be_quoted(refused, root, tmp_path):
    """In a run and in a sweep, which would take its halves for two values; quoted it is one path."""
    folder = tmp_path / "a,b"
    shutil.copytree(root / "model", folder)
    (folder / "chat_template.jinja").unlink()
    for more in ((), ("-m", "seed=1,2")):
        assert f"quote it: 'model.path=\"{folder}\"'" in refused(
            "algorithm=dpo", "model=hf", f"model.path={folder}", *more
        )
    assert "has no chat template" in refused("algorithm=dpo", "model=hf", f'model.path="{folder}"')


BLOCKED = """
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.startswith({names}) else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
from alignlab.cli import main
sys.exit(main(sys.argv[1:]))
"""
EXTRAS = {
    "wandb": (("algorithm=dpo", "tracker=wandb"), "tracker=wandb: needs wandb; pip install 'alignlab[wandb]'"),
    "bitsandbytes": (("algorithm=dpo", "model.quantization=nf4"), "pip install 'alignlab[nf4]'"),
    "hydra_plugins": (
        ("-m", "algorithm=dpo", "seed=1,2", "hydra/launcher=slurm"),
        "hydra/launcher=slurm: is not installed; pip install 'alignlab[slurm]'",
    ),
}


@pytest.mark.parametrize("package", EXTRAS)
def test_an_extra_that_is_not_installed_is_named(root, tmp_path, package):
    given, said = EXTRAS[package]
    ended = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(names=repr(package)), "model=hf", f"model.path={root}/model", *given],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_slurm_is_refused_where_nothing_can_be_submitted(refused, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setattr("alignlab.checks.machine.shutil.which", lambda name: None)
    said = refused("-m", "algorithm=dpo", "seed=1,2", "hydra/launcher=slurm")
    assert said.startswith("hydra/launcher=slurm: this machine has no srun; submit from a login node")
