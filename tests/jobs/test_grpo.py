"""algorithm=grpo by the real command; killed and run again it is in test_killed_methods.py."""

import shutil

import pytest

from alignlab.cli import main
from support.commands import alignlab, assert_refused, logged, result, run_folder

GRPO = ("algorithm=grpo", "reward=gold", "algorithm.generations=4")


def test_a_run_is_a_point_of_the_front(whole, tmp_path):
    shutil.copytree(whole / "cache", tmp_path / "cache")
    tables = {file: file.stat().st_size for file in (tmp_path / "cache/scores").glob("*.parquet")}
    ended = alignlab(*GRPO, "w=0.3", "trainer.max_steps=3", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    run = run_folder(tmp_path, "grpo", 0.3)
    found, lines = result(run), [line for line in logged(run) if "reward" in line]
    assert {"helpful", "safe", "kl", "better_accuracy"} <= set(found["metrics"])
    assert found["recipe"] == {"normalised": True, "generations": 4}
    assert found["prompts"]["train"] > 100
    assert len(lines) == 3
    assert lines[0]["rewards/minus_kl/mean"] == pytest.approx(0, abs=1e-4), "the policy begins as the reference"
    assert lines[0]["reward"] == pytest.approx(lines[0]["rewards/reward/mean"], abs=1e-4)
    assert (run / "adapter/adapter_model.safetensors").exists()
    kept = {file: file.stat().st_size for file in (tmp_path / "cache/scores").glob("*.parquet") if file in tables}
    assert all(size <= tables[file] + 100_000 for file, size in kept.items()), "samples of training are not kept"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["algorithm.generations=1"], "algorithm.generations=1: must be >= 2"),
        (["algorithm.generations=5"], "algorithm.generations=5: must divide the 32 responses of a step"),
        (
            ["generator=server", "generator.model=some"],
            "generator=server: algorithm=grpo samples the policy",
        ),
        (["algorithm.beta=0"], "algorithm.beta=0.0: must be a finite number > 0"),
    ],
)
def test_refused_in_one_line(tmp_path, capfd, given, said):
    code = main(["algorithm=grpo", f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache", *given])
    assert_refused(code, capfd, said)
