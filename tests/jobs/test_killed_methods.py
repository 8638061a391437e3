"""Every method killed at three points and run again has the bytes of an unbroken run."""

import shutil

import pytest

from support.commands import SMALL, alignlab, result, run_folder

TRAINING = ("alignlab.training.callbacks:ProgressCallback.on_step_end", 3)
SAMPLING = ("alignlab.evaluation.measure:sample_responses", 1)
WRITING = ("alignlab.evaluation.measure:write_jsonl", 2)
RESULTS = ("adapter_model.safetensors", "generations.jsonl", "scores.jsonl", "choice.json")
METHODS = {
    "dpo_lw": (["w=0.3"], [TRAINING, SAMPLING, WRITING]),
    "raco": (["w=0.3"], [TRAINING, SAMPLING, WRITING]),
    "safedpo": (["algorithm.offset=1"], [TRAINING, SAMPLING, WRITING]),
    "rebel": (["w=0.3", "reward=gold"], [TRAINING, SAMPLING, WRITING]),
    "grpo": (["w=0.3", "reward=gold", "algorithm.generations=4"], [TRAINING, SAMPLING, WRITING]),
    "modpo_conditioned": (
        ["reward=gold", "algorithm.normalise=false", "algorithm.export_at=[0.2]"],
        [TRAINING, ("alignlab.models.conditioned:save_file", 1), WRITING],
    ),
    "soup": (["w=0.3"], [TRAINING, ("alignlab.jobs.soup:save_card", 1), SAMPLING]),  # an end is being trained first
    "logit_mix": (["w=0.3"], [TRAINING, SAMPLING, WRITING]),
    "best_of_n": (
        ["w=0.3", "algorithm.n=2", "generator.samples=4"],
        [
            SAMPLING,
            ("alignlab.evaluation.weighted:write_jsonl", 2),
            ("alignlab.evaluation.weighted:against_optimum", 1),
        ],
    ),
    "choose": (
        ["algorithm.runs=[runs/modpo]", "target.safer=-5"],
        [(f"alignlab.jobs.choose:{name}", 1) for name in ("choose", "_record", "write_json")],
    ),
    "reward_model": (
        ["algorithm.kind=cost"],
        [TRAINING, ("alignlab.jobs.reward_model:save_card", 1), ("alignlab.jobs.reward_model:trained_source", 1)],
    ),
}


def results(folder):
    """Bytes of what a run made, by path below it; a kill leaves hidden, torn folders, which algorithm=clean removes."""
    found = {file.relative_to(folder): file for file in folder.rglob("*") if file.name in RESULTS}
    kept = {path: file for path, file in found.items() if "checkpoints" not in path.parts}
    return {str(path): file.read_bytes() for path, file in kept.items() if not path.parts[0].startswith(".")}


@pytest.mark.parametrize("algorithm", METHODS)
def test_killed_at_three_points_and_run_again_it_has_the_same_bytes(whole, tmp_path, algorithm):
    own, breaks = METHODS[algorithm]
    given = (f"algorithm={algorithm}", *own)
    small = () if algorithm == "choose" else SMALL
    folders = [tmp_path / name for name in ("once", "killed")]
    for folder in folders:
        shutil.copytree(whole / "cache", folder / "cache")
        shutil.copytree(whole / "runs/modpo", folder / "runs/modpo")
    ended = alignlab(*given, cwd=folders[0], small=small)
    assert ended.returncode == 0, ended.stderr
    for where, nth in breaks:
        assert alignlab(*given, cwd=folders[1], small=small, breaks=(where, nth, "SIGKILL")).returncode == -9, where
    ended = alignlab(*given, cwd=folders[1], small=small)
    assert ended.returncode == 0, ended.stderr
    once, killed = (run_folder(folder, algorithm) for folder in folders)
    assert results(once)
    assert results(killed) == results(once)
    assert result(killed)["metrics"] == result(once)["metrics"]
