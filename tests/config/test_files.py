"""Every YAML: it composes, its keys are explained, and none of them names code to run."""

import re
from pathlib import Path

import pytest
import yaml
from hydra import compose
from omegaconf import OmegaConf

from alignlab.config.hydra.compose import composing
from alignlab.config.roots import config_root

ROOTS = {name: config_root(name) for name in ("conf", "sweeps", "launchers")}
CHOICES = sorted(path for path in ROOTS["conf"].rglob("*.yaml") if path.parent != ROOTS["conf"])
SWEEPS = sorted(ROOTS["sweeps"].rglob("*.yaml"))
LAUNCHERS = sorted(ROOTS["launchers"].rglob("*.yaml"))
GROUPS = {"model", "dataset", "algorithm", "weights", "peft", "hardware", "generator", "judge", "reward"} | {
    "scorers",
    "tracker",
    "experiment",
}
DATA = ["model=scratch", "algorithm=dpo"]
NEEDS = {
    "algorithm=merge": ["algorithm.adapter=owner/name"],
    "algorithm=export": ["algorithm.adapter=owner/name"],
    "weights=vector": ["w=[0.5,0.5]"],
    "dataset=toy_three": ["w=[0.4,0.3,0.3]"],
    "model=hf": ["model.path=owner/name"],
    "generator=server": ["generator.model=name"],
    **{f"judge={name}": ["judge.path=owner/name"] for name in ("local", "guard")},
    **{
        f"dataset={path.stem}": DATA
        for path in CHOICES
        if path.parent.name == "dataset" and not path.stem.startswith("toy")
    },
    **{
        f"dataset={name}": [*DATA, "dataset.path=rows.jsonl"]
        for name in ("pairs", "ranked", "scored", "c2_syn", "c2_eval")
    },
}
"""What a choice does not work without."""
SWEEP_NEEDS = {"c2_eval": ["dataset.path=rows.jsonl"]}
SHARED = [path for path in CHOICES if path.name.startswith("_")]
"""What the choices of a group share; no choices themselves."""


def test_the_walk_sees_every_file():
    on_disk = {path for root in ROOTS.values() for path in root.rglob("*") if path.is_file()}
    assert on_disk == {ROOTS["conf"] / "config.yaml", *CHOICES, *SWEEPS, *LAUNCHERS, ROOTS["launchers"] / "README.md"}
    assert {path.parent.name for path in CHOICES} == GROUPS
    assert (len(CHOICES), len(SWEEPS), len(LAUNCHERS)) >= (35, 3, 4), "the walk lost files"


REFUSED = [ROOTS["conf"] / "dataset" / "prompts.yaml"]
"""Without pairs, which every algorithm needs as yet: tests/config/test_datasets.py."""


@pytest.mark.parametrize(
    "path",
    [path for path in CHOICES if path not in (*SHARED, *REFUSED)],
    ids=lambda path: f"{path.parent.name}={path.stem}",
)
def test_every_choice_composes_into_a_checked_run(run_of, path):
    config = run_of(f"{path.parent.name}={path.stem}", *NEEDS.get(f"{path.parent.name}={path.stem}", []))
    assert config.seed == 0
    if path.parent.name in ("model", "dataset", "algorithm"):
        first = yaml.safe_load(path.read_text())["defaults"][0]  # a variant begins with the choice that it varies
        known = {path.stem, first} if isinstance(first, str) else {path.stem}
        assert getattr(config, path.parent.name).name in known, "a choice is named as its file"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_composes(runs_of, path):
    runs = runs_of(*SWEEP_NEEDS.get(path.stem, []), name=path.stem)
    assert len(runs) > 2
    assert f"--config-name {path.stem}" in path.read_text(), "its comment holds the command"


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_every_launcher_composes(runs_of, path):
    pytest.importorskip({"parallel": "joblib", "ray_local": "ray"}.get(path.stem, "submitit"))
    assert len(runs_of("w=0.1,0.9", f"hydra/launcher={path.stem}", multirun=True)) == 2


def unexplained(text):
    """Keys without a comment above, apart from headings (whose keys are explained), defaults, kinds and names."""
    lines = text.splitlines()
    found = []
    for above, line, below in zip(["", *lines], lines, [*lines[1:], ""], strict=False):
        key = re.match(r"( *)([\w./]+):", line)
        if not key or key[2] in ("defaults", "kind", "name", "scheme", "mode", "subdir", "dir", "output_subdir"):
            continue
        is_heading = line.rstrip().endswith(":") and len(below) - len(below.lstrip()) > len(key[1])
        if not is_heading and not above.lstrip().startswith("#"):
            found.append(key[2])
    return found


@pytest.mark.parametrize(
    "path",
    [ROOTS["conf"] / "config.yaml", *CHOICES, *SWEEPS, *LAUNCHERS],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_file_and_key_is_explained(path):
    text = path.read_text()
    assert text.startswith("# "), "a file says in its first line what it is"
    assert unexplained(text) == []


def test_an_unexplained_key_is_seen():
    assert unexplained("# a file\nx:\n  # why\n  a: 1\n  b: 2\n") == ["b"]


def keys_and_values(node):
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key)
            yield from keys_and_values(value)
    elif isinstance(node, list):
        for value in node:
            yield from keys_and_values(value)
    else:
        yield node


@pytest.mark.parametrize("root", ROOTS.values(), ids=list(ROOTS))
def test_no_file_names_code_to_run(root):
    for path in root.rglob("*.yaml"):
        words = list(keys_and_values(yaml.safe_load(path.read_text())))
        assert not [word for word in map(str, words) if word in ("_target_", "()") or "callbacks" in word], path


def test_numbers_are_written_as_numbers():
    for root in ROOTS.values():
        for path in root.rglob("*.yaml"):
            for word in keys_and_values(yaml.safe_load(path.read_text())):
                as_text = isinstance(word, str) and re.fullmatch(r"[\d.]+e-?\d+|None", word)
                assert not as_text, f"{path}: {word} is text to YAML"


def test_the_committed_default_config_is_todays():
    committed = (Path(__file__).parents[2] / "docs" / "default_config.yaml").read_text()
    heading, _, settings = committed.partition("\n")
    assert heading.startswith("# ")
    with composing():
        today = OmegaConf.to_yaml(compose("config"))
    assert settings == today, "run `make config` and look at the difference"
