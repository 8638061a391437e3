"""An algorithm is added in four files: its schema with its uses, its line in the table, its YAML and its job."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCHEMA = '''"""Counts."""

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import if_kind
from alignlab.config.schema.algorithm import AlgorithmConfig
from alignlab.config.uses import Uses, always
from alignlab.errors import require


@dataclass
class CountConfig(AlgorithmConfig):
    """Count to a number."""

    uses: ClassVar[Uses] = Uses(
        reads={
            "algorithm": always,
            "algorithm.loudness": if_kind("algorithm.said", True),
            "seed": always,
            "paths": always,
            "force": always,
        },
        writes=("counted.txt",),
        after_sweep="alignlab.jobs.count",
    )
    to: int = MISSING
    said: bool = MISSING
    loudness: int = MISSING

    def __post_init__(self) -> None:
        require(self.to > 0, "algorithm.to", self.to, "must be > 0")
'''
YAML = """defaults:
  - /schema/algorithm@_here_: count
  - _self_
name: count
to: 3
said: false
loudness: 1
"""
JOB = '''"""Counts."""

from alignlab.runs.progress import say


def run(plan, run, outcome):
    """Write the count."""
    (run.path / "counted.txt").write_text(str(plan.algorithm.to))
    outcome.artifacts["counted"] = "counted.txt"
    outcome.metrics["count"] = {"mean": float(plan.algorithm.to), "ci95": None, "n": 1}


def after_sweep(jobs):
    """Add the counts of a sweep."""
    say(f"together: {sum(plan.algorithm.to for plan, _ in jobs)}")
'''


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the project with three files more and one that is changed."""
    folder = tmp_path_factory.mktemp("house")
    for name in ("alignlab", "conf", "sweeps", "launchers"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "alignlab/config/schema/count.py").write_text(SCHEMA)
    (folder / "alignlab/jobs/count.py").write_text(JOB)
    (folder / "conf/algorithm/count.yaml").write_text(YAML)
    table = folder / "alignlab/config/schema/run.py"
    text = table.read_text()
    for before, added in (
        ("from alignlab.config.schema.dataset", "from alignlab.config.schema.count import CountConfig\n"),
        ('        "sft": SftConfig,', '        "count": CountConfig,\n'),
    ):
        assert before in text
        text = text.replace(before, added + before, 1)
    table.write_text(text)
    return folder


@pytest.fixture
def alignlab(house, tmp_path):
    """Runs the copy's command in a folder of its own."""

    def run(*arguments):
        command = [sys.executable, "-m", "alignlab", *arguments]
        environment = {"PYTHONPATH": str(house), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


def folders(root):
    return {path.parent for path in root.rglob("result.json")}


def test_it_runs_is_found_again_and_has_a_folder_of_what_it_uses(alignlab, tmp_path):
    assert alignlab("algorithm=count", "algorithm.to=4").returncode == 0
    (folder,) = folders(tmp_path)
    assert folder.parts[-2:-1] == ("count",), "it reads neither model nor data"
    assert json.loads((folder / "result.json").read_text())["metrics"]["count"]["mean"] == 4
    assert "done before" in alignlab("algorithm=count", "algorithm.to=4").stdout
    idle = alignlab("algorithm=count", "algorithm.to=4", "trainer.max_steps=3", "algorithm.loudness=9")
    assert "done before" in idle.stdout, "what it does not use changes no folder"
    assert "trainer.max_steps=3: has no effect on algorithm=count" in idle.stderr
    assert "algorithm.loudness=9: has no effect with algorithm.said=False" in idle.stderr
    (folder / "counted.txt").unlink()
    assert "running" in alignlab("algorithm=count", "algorithm.to=4").stdout, "a run without its files is not done"
    assert len(folders(tmp_path)) == 1


def test_it_is_checked_and_in_the_help(alignlab, tmp_path):
    wrong = alignlab("algorithm=count", "algorithm.to=0")
    assert (wrong.returncode, wrong.stderr.strip()) == (2, "algorithm.to=0: must be > 0")
    assert "count" in alignlab("--help").stdout
    assert folders(tmp_path) == set()


def test_a_sweep_ends_in_its_report(alignlab, tmp_path):
    swept = alignlab("-m", "algorithm=count", "algorithm.to=1,2,3")
    assert swept.returncode == 0, swept.stderr
    assert "together: 6" in swept.stdout
    assert len(folders(tmp_path)) == 3
