"""An error about an adapter or a reward names the key that was typed, whatever the job calls it inside."""

import ast
import contextlib
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import alignlab
from alignlab.cli import main
from alignlab.data.worlds import toy
from support.saved_adapters import MAKES, saved

SMALL = [
    "model=hf",
    "model.prompt_template='user: {raw_prompt} assistant: '",
    "dataset=pku_saferlhf",
    "trainer.max_length=64",
    "generator.samples=2",
    "generator.prompts=4",
    "generator.max_new_tokens=8",
    "scorers.better.kind=length",
    "scorers.safer.kind=length",
]
LOADS = ("with_adapter", "load_adapter", "merge_adapter", "change_of", "local_adapter", "Member", "adapter_for")
"""What loads an adapter; each call says what the adapter stands under."""


@pytest.fixture(scope="module")
def place(base, tmp_path_factory):
    """A base model, a file of preferences, and an adapter whose files are whole but whose weights hold NaN."""
    root = tmp_path_factory.mktemp("keys")
    (root / "model").symlink_to(base.path)
    row = {"response_0": "mind the red first", "response_1": "what a lovely red thing", "safer_response_id": 0}
    rows = [json.dumps({"prompt": prompt, "better_response_id": 1, **row}) for prompt in toy.all_prompts()[:40]]
    (root / "rows.jsonl").write_text("\n".join(rows) + "\n")
    (root / "prompts.jsonl").write_text("".join(json.dumps({"prompt": one}) + "\n" for one in toy.all_prompts()[:8]))
    file = saved(base, root / "nan", MAKES["attention"]) / "adapter_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, file)
    return root


def refused(place, capfd, *given):
    """The error of a command on the small model."""
    with contextlib.chdir(place):
        code = main([*SMALL, "model.path=model", "dataset.path=rows.jsonl", *given, "paths.runs=r", "paths.cache=c"])
    said = capfd.readouterr().err
    assert code == 2, said
    return said


ONLY_PROMPTS = ["dataset=prompts", "dataset.path=prompts.jsonl"]
BOTH = [f"algorithm.rewards.{name}.{one}" for name in ("better", "safer") for one in ("adapter=nan", "beta=1")]
IMPLICIT = [f"scorers.better.{one}" for one in ("kind=implicit", "adapter=nan", "beta=1")]
LOADED = [
    ("algorithm.adapter", ["algorithm=evaluate", "algorithm.adapter=nan"]),
    ("algorithm.adapter", ["algorithm=merge", "algorithm.adapter=nan"]),
    ("algorithm.adapter", ["algorithm=audit", "algorithm.adapter=nan", "w=1"]),
    ("model.adapter", ["algorithm=evaluate", "model.adapter=nan"]),
    ("algorithm.sources", ["algorithm=pairs", "algorithm.sources=[nan]", *ONLY_PROMPTS]),
    ("algorithm.adapters.better", ["algorithm=soup", "algorithm.adapters.better=nan", "algorithm.adapters.safer=nan"]),
    ("algorithm.rewards.better.adapter", ["algorithm=logit_mix", *BOTH]),
    ("reward.adapter", ["algorithm=audit", "reward.adapter=nan", "reward.beta=1", "w=0.5"]),
    ("scorers.better.adapter", ["algorithm=evaluate", *IMPLICIT]),
]


@pytest.mark.parametrize(("key", "given"), LOADED)
def test_an_adapter_that_fails_as_it_loads(place, capfd, key, given):
    said = refused(place, capfd, *given)
    assert f"{key}=nan: the tensor base_model." in said
    assert "is damaged" in said


@pytest.mark.parametrize(
    ("said", "given"),
    [
        ("algorithm.sources=./none: no such folder", ["algorithm=pairs", "algorithm.sources=[./none]"]),
        ("reward.path=./none: no such folder", ["algorithm=audit", "reward=classifier", "reward.path=./none"]),
        ("reward.path=./none: no such folder", ["algorithm=modpo", "reward=beaver", "reward.path=./none"]),
        ("reward.function=none: ", ["algorithm=modpo", "reward=python", "reward.function=none"]),
        (
            "algorithm.rewards.safer.path=./none: no such folder",
            ["algorithm=modpo", "w=0.7", "algorithm.rewards.safer.kind=beaver", "algorithm.rewards.safer.path=./none"],
        ),
        ("scorers.better.path=./none: no such folder", ["scorers.better.kind=judge", "scorers.better.path=./none"]),
    ],
)
def test_a_name_that_is_wrong_before_anything_loads(place, capfd, said, given):
    assert said in refused(place, capfd, *given)


def test_every_call_that_loads_an_adapter_says_its_key():
    root, found = Path(alignlab.__file__).parent, 0
    for file in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if name in LOADS:
                found += 1
                given = {word.arg for word in node.keywords}
                is_given = "key" in given or len(node.args) > 2 or name == "adapter_for" or _is_none(node)
                assert is_given, f"{file.relative_to(root)}:{node.lineno} {name}"
    assert found > 12


def _is_none(node):
    """Whether the call is of the base model, which has no adapter."""
    return bool(node.args) and isinstance(node.args[0], ast.Constant) and node.args[0].value is None
