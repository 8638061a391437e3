"""algorithm=dpo_lw and raco: every objective's own pairs in one training."""

import shutil

import pytest

from alignlab.cli import main
from alignlab.jobs.dpo_lw import pair_weights
from support.commands import alignlab, assert_refused, logged, means, result, run_folder

STEP = "alignlab.training.callbacks:ProgressCallback.on_step_end"
WEIGHTS = "adapter/adapter_model.safetensors"


def test_one_objective_alone_has_weights_of_one():
    assert pair_weights({"better": 3}, {"better": 1.0}) == [1.0, 1.0, 1.0]


@pytest.fixture(scope="module")
def trained(whole, tmp_path_factory):
    """A folder with dpo, dpo_lw at w=1 and w=0.3, and raco at w=0.3."""
    folder = tmp_path_factory.mktemp("weighted")
    shutil.copytree(whole / "cache", folder / "cache")
    for given in (("algorithm=dpo",), ("algorithm=raco", "w=0.3"), ("-m", "algorithm=dpo_lw", "w=1,0.3")):
        ended = alignlab(*given, cwd=folder)
        assert ended.returncode == 0, ended.stderr
    return folder, ended.stdout


def test_at_w_1_it_is_dpo_to_the_bit(trained):
    folder, said = trained
    dpo, ours = run_folder(folder, "dpo"), run_folder(folder, "dpo_lw", 1)
    assert (ours / WEIGHTS).read_bytes() == (dpo / WEIGHTS).read_bytes()
    assert means(ours) == means(dpo)
    assert (run_folder(folder, "dpo_lw", 0.3) / WEIGHTS).read_bytes() != (dpo / WEIGHTS).read_bytes(), "control"
    assert "reward" not in " ".join(line for line in said.splitlines() if line.startswith("needs")), "none is made"


def test_both_objectives_pairs_are_in_it(trained):
    run = run_folder(trained[0], "dpo_lw", 0.3)
    rows, first = result(run)["rows"], logged(run)[0]
    assert rows["train"] == sum(rows["by_objective"].values())
    assert min(rows["by_objective"].values()) > 100
    assert first["loss"] == pytest.approx(0.6931, abs=0.01), "ln 2: the weights of a batch sum to its pairs"


def test_raco_is_a_method_of_its_own(trained):
    run, sums = run_folder(trained[0], "raco", 0.3), run_folder(trained[0], "dpo_lw", 0.3)
    assert result(run)["rows"] == result(sums)["rows"]
    assert all(-1 <= line["gradients/cosine"] <= 1 for line in logged(run) if "loss" in line)
    assert (run / WEIGHTS).read_bytes() != (sums / WEIGHTS).read_bytes()


@pytest.mark.parametrize("algorithm", ["raco"])  # whose training step is its own; dpo_lw's is modpo's
def test_killed_in_training_it_ends_in_the_same_bytes(trained, tmp_path, algorithm):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    run = run_folder(tmp_path, algorithm, 0.3)
    shutil.rmtree(run)
    given = (f"algorithm={algorithm}", "w=0.3")
    assert alignlab(*given, cwd=tmp_path, breaks=(STEP, 3, "SIGKILL")).returncode == -9
    again = alignlab(*given, cwd=tmp_path)
    assert "resumes from" in again.stdout
    assert (run / WEIGHTS).read_bytes() == (run_folder(trained[0], algorithm, 0.3) / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["w=1.2"], "w=1.2: must be between 0 and 1"),
        (["w=[0,0]", "weights=vector"], "leaves nothing to train on: every weight is 0"),
        (["algorithm=raco", "algorithm.conflict=1"], "algorithm.conflict=1.0: must be in [0, 1)"),
    ],
)
def test_refused_in_one_line(tmp_path, capfd, given, said):
    code = main(["algorithm=dpo_lw", f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache", *given])
    assert_refused(code, capfd, said)
