"""Every command of the README passes the checks that come before a job, and names only what exists."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from alignlab.cli import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("python -m alignlab")]
ROW = {
    "prompt": "a b",
    "response_0": "x",
    "response_1": "y",
    "better_response_id": 0,
    "safer_response_id": 1,
    "is_response_0_safe": False,
    "is_response_1_safe": True,
}
RANKED = {"prompt": "please describe the red widget", "responses": ["sorry", "now turn", "also"]}
EXTRAS = {"parallel": "joblib", "slurm_local": "submitit", "slurm": "submitit", "ray_local": "ray"}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder with the files that the README's commands name."""
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    files = {
        "my-model": "config.json",
        "ADAPTER": "adapter_config.json",
        "CONDITIONED": "adapter_config.json",
        "BEFORE": "corr.json",
        "AFTER": "corr.json",
    }
    for folder, file in files.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text('{"peft_type": "LORA"}')
    (tmp_path / "SYNTHESIS").mkdir()
    card = {"objective": "", "beta": 1.0, "base": "x", "prompt_template": None, "dataset": "toy", "weights": {}}
    (tmp_path / "CONDITIONED" / "alignlab.json").write_text(
        json.dumps({**card, "conditioned": True, "ranks": {"better": 8, "safer": 8}})
    )
    (tmp_path / "SYNTHESIS" / "ranked.jsonl").write_text(json.dumps(RANKED) + "\n")
    one = {"weight": np.zeros(1, dtype=np.float32)}
    for name in ("ADAPTER", "CONDITIONED"):
        save_file(one, tmp_path / name / "adapter_model.safetensors")
    save_file(one, tmp_path / "my-model" / "model.safetensors")
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("alignlab.checks.machine._GPU_NODES", ("*",))  # as on a machine with a GPU
    return tmp_path


def test_the_readme_holds_commands():
    assert len(COMMANDS) >= 20
    everything = [line for line in TEXT.splitlines() if line.strip().startswith("python -m alignlab")]
    assert len(everything) == len(COMMANDS), "a command outside a sh block is not checked"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.partition("#")[0].strip()[19:])
def test_a_command_is_accepted(elsewhere, capsys, command):
    arguments = shlex.split(command, comments=True)[3:]
    for launcher in (word.partition("=")[2] for word in arguments if word.startswith("hydra/launcher=")):
        pytest.importorskip(EXTRAS[launcher])
    if "algorithm=publish" in arguments and not all(map(importlib.util.find_spec, ("optuna", "inspect_ai"))):
        pytest.skip("optuna and inspect-ai are in the extra `publish`, which make everything installs")
    assert main(arguments if "--help" in arguments else [*arguments, "--cfg", "job"]) == 0
    assert capsys.readouterr().err == "", "no warning either"


def test_a_wrong_command_is_seen(elsewhere, capsys):
    assert main(["--cfg", "job", "algorithm=modpo", "w=0.3", "dataset.pth=rows.jsonl"]) == 2
    assert "dataset.pth" in capsys.readouterr().err


def test_the_tree_is_the_houses():
    (tree,) = [part for part in TEXT.split("\n\n") if part.startswith("    conf/ ")]
    for line in tree.splitlines():
        depth, name = len(line) - len(line.lstrip()), line.split()[0]
        assert (ROOT / ("alignlab" if depth > 4 else "") / name).exists(), name
    packages = {path.parent.name for path in (ROOT / "alignlab").glob("*/__init__.py")}
    assert packages <= set(re.findall(r"(\w+)/", tree)), "every package is shown"


def test_the_groups_are_all_named():
    (line,) = [line for line in TEXT.splitlines() if line.startswith("Groups: ")]
    assert set(re.findall(r"`(\w+)`", line)) == {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert target == "docs/front.png" or (ROOT / target).exists(), target


def test_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"make (demo|test|config|\w+ity)\b", TEXT)) <= targets
