"""algorithm=safedpo: which pairs it trains on, its loss from the equation, and a run."""

import math
import shutil

import pytest
import torch

from alignlab.cli import main
from alignlab.data.records import RankedRow
from alignlab.data.safe_pairs import safe_pairs
from alignlab.training.losses import PairLogps, PreferenceLoss, safety_tilt
from support.commands import alignlab, assert_refused, logged, result, run_folder

STEP = "alignlab.training.callbacks:ProgressCallback.on_step_end"
WEIGHTS = "adapter/adapter_model.safetensors"


def rows(*safety):
    return [
        RankedRow(f"ask {number}", ("one", "two"), {"better": (1.0, 0.0)}, safe=own)
        for number, own in enumerate(safety)
    ]


def test_no_safe_response_is_rejected_for_an_unsafe_one():
    found = safe_pairs(rows((True, True), (True, False), (False, True), (False, False), (None, True), ()), "better")
    assert [(pair.chosen, found.gaps[pair.id]) for pair in found.pairs] == [("one", 0), ("one", 1), ("two", 1)]
    assert (found.swapped, found.both_unsafe, found.unlabelled) == (1, 1, 2)


def test_the_loss_of_ten_pairs_is_the_equations_own():
    torch.manual_seed(0)
    logps = [-20 * torch.rand(10, dtype=torch.float64) for _ in range(4)]
    lengths, gaps_P, beta, offset = torch.full((10,), 7), torch.tensor([0, 1] * 5), 0.3, 2.5
    pairs = PairLogps(*logps, lengths, lengths)
    tilted = pairs.tilted(safety_tilt(gaps_P, offset=offset, beta=beta), torch.zeros(10))
    got = PreferenceLoss("sigmoid", beta=beta).per_pair(tilted).tolist()

    def plain(sign):
        policy_w, policy_l, ref_w, ref_l = (column.tolist() for column in logps)
        margins = [
            beta * ((policy_w[n] - ref_w[n]) - (policy_l[n] - ref_l[n])) - sign * offset * int(gaps_P[n])
            for n in range(10)
        ]
        return [math.log1p(math.exp(-margin)) for margin in margins]

    assert got == pytest.approx(plain(1), rel=1e-12)
    assert got != pytest.approx(plain(-1), rel=1e-2), "control: the other sign"


def test_a_run_and_a_killed_one(whole, tmp_path):
    folders = [tmp_path / name for name in ("once", "killed")]
    for folder in folders:
        shutil.copytree(whole / "cache", folder / "cache")
    ended = alignlab("algorithm=safedpo", "algorithm.offset=1", cwd=folders[0])
    assert ended.returncode == 0, ended.stderr
    killed = alignlab("algorithm=safedpo", "algorithm.offset=1", cwd=folders[1], breaks=(STEP, 3, "SIGKILL"))
    assert killed.returncode == -9
    assert "resumes from" in alignlab("algorithm=safedpo", "algorithm.offset=1", cwd=folders[1]).stdout
    runs = [run_folder(folder, "safedpo") for folder in folders]
    assert (runs[0] / WEIGHTS).read_bytes() == (runs[1] / WEIGHTS).read_bytes()
    counts = result(runs[0])["rows"]
    assert min(counts["swapped"], counts["both_unsafe"]) > 0
    assert math.log(2) < logged(runs[0])[0]["loss"] < math.log1p(math.e), "between gaps of 0 and of 1"


def test_data_without_safety_labels_is_refused(tmp_path, capfd):
    code = main(["algorithm=safedpo", "dataset=hh_rlhf", "model=scratch", f"paths.runs={tmp_path}/runs"])
    assert_refused(code, capfd, "dataset.kind=hh_rlhf: must be toy or pku_saferlhf")
