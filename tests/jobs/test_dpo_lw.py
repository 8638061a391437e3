"""algorithm=dpo_lw: each objective's mean DPO loss on its own pairs, times its weight."""

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
    """A folder with dpo, and dpo_lw at w=1 and w=0.3."""
    folder = tmp_path_factory.mktemp("weighted")
    shutil.copytree(whole / "cache", folder / "cache")
    for given in (("algorithm=dpo",), ("-m", "algorithm=dpo_lw", "w=1,0.3")):
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


def test_killed_in_training_it_ends_in_the_same_bytes(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    run = run_folder(tmp_path, "dpo_lw", 0.3)
    shutil.rmtree(run)
    given = ("algorithm=dpo_lw", "w=0.3")
    assert alignlab(*given, cwd=tmp_path, breaks=(STEP, 3, "SIGKILL")).returncode == -9
    again = alignlab(*given, cwd=tmp_path)
    assert "resumes from" in again.stdout
    assert (run / WEIGHTS).read_bytes() == (run_folder(trained[0], "dpo_lw", 0.3) / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["w=1.2"], "w=1.2: must be between 0 and 1"),
        (["w=[0,0]", "weights=vector"], "leaves nothing to train on: every weight is 0"),
        (["algorithm.loss_type=nca_pair"], "algorithm.loss_type=nca_pair: refused"),
        (
            ["algorithm.label_smoothing=0.1"],
            "algorithm.label_smoothing=0.1: must be 0 with algorithm.loss_type=sigmoid",
        ),
    ],
)
def test_refused_in_one_line(tmp_path, capfd, given, said):
    code = main(["algorithm=dpo_lw", f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache", *given])
    assert_refused(code, capfd, said)
