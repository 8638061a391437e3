"""A sweep computes nothing twice, and a job that fails takes nothing else with it."""

import csv
import shutil

import pytest

from support.commands import alignlab, means, result, run_folder, snapshot

pytestmark = pytest.mark.slow
TRAINING_STEP = "alignlab.training.callbacks:ProgressCallback.on_step_end"


@pytest.fixture(scope="module")
def swept(whole, tmp_path_factory):
    """A folder in which w=0.5, 0.3 and 0.7 are done."""
    folder = tmp_path_factory.mktemp("swept")
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    ended = alignlab("-m", "w=0.3,0.7", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture
def copied(swept, tmp_path):
    shutil.copytree(swept, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_sweep_reuses_what_the_first_run_made(whole, swept):
    for w in (0.3, 0.7):
        counts = result(run_folder(swept, "modpo", w))["cache"]
        assert counts["reference"]["computed"] == counts["safer"]["computed"] == 0
        assert min(counts["reference"]["reused"], counts["safer"]["reused"]) > 0
    first = result(run_folder(whole, "modpo"))["cache"]
    assert first["safer"]["computed"] > 0  # control: the count counts


def test_the_second_sweep_does_nothing(copied):
    before = snapshot(copied / "runs", copied / "cache")
    assert len(before) > 20
    ended = alignlab("-m", "w=0.3,0.7", cwd=copied)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("done before") == 2
    assert "running" not in ended.stdout
    assert snapshot(copied / "runs", copied / "cache") == before


def test_a_weight_added_later_reuses_models_log_probabilities_and_margins(copied):
    before = snapshot(copied / "runs", copied / "cache")
    ended = alignlab("w=0.4", cwd=copied)
    assert ended.returncode == 0, ended.stderr
    folder = run_folder(copied, "modpo", 0.4)
    counts = result(folder)["cache"]
    assert counts["reference"] == {"computed": 0, "reused": counts["reference"]["reused"]}
    assert counts["safer"] == {"computed": 0, "reused": counts["safer"]["reused"]}
    after = snapshot(copied / "runs", copied / "cache")
    touched = {file for file in after if after[file] != before.get(file)}
    new = {file for file in touched if file not in before}
    assert touched == new  # nothing that was there was written again
    assert all(file.startswith(str(folder)) or "/cache/scores/" in file for file in new)
    assert sum("/cache/scores/" in file for file in new) == 1  # the new policy's own; also the control: a change shows


def test_a_failed_job_leaves_its_record_and_the_front_of_the_others(swept, whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)  # w=0.5 is done, w=0.6 will fail in its third step
    ended = alignlab("-m", "w=0.5,0.6,0.7", cwd=tmp_path, breaks=(TRAINING_STEP, 3, "raise"))
    assert ended.returncode == 1
    failed = run_folder(tmp_path, "modpo", 0.6)
    record = result(failed)
    assert record["status"] == "failed"
    assert record["error"] == "RuntimeError: broken by the test"
    assert "Traceback" in (failed / "job.log").read_text()
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "RuntimeError: broken by the test" in ended.stderr
    assert str(failed.relative_to(tmp_path)) in ended.stderr
    (listed, command) = [line for line in ended.stderr.splitlines() if "w=0.6" in line][-2:]
    assert "RuntimeError: broken by the test" in listed
    assert command.strip().startswith("python -m alignlab ")
    assert not any(f"w={w}" in command.split() for w in ("0.5", "0.7"))
    front = next((tmp_path / "runs" / "front").rglob("front.csv")).parent
    rows = {row["w"]: row["status"] for row in csv.DictReader((front / "front.csv").open())}
    assert rows == {"0.5": "done", "0.6": "failed", "0.7": "done"}
    assert (front / "front.png").stat().st_size > 10_000
    # A job after the failed one, in the same process, finds an unharmed base model.
    assert means(run_folder(tmp_path, "modpo", 0.7)) == means(run_folder(swept, "modpo", 0.7))


def test_a_failed_job_goes_on_from_its_checkpoint(swept, tmp_path):
    shutil.copytree(swept, tmp_path, dirs_exist_ok=True)
    assert alignlab("w=0.6", cwd=tmp_path, breaks=(TRAINING_STEP, 3, "raise")).returncode == 1
    ended = alignlab("w=0.6", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "checkpoint-2" in ended.stdout
    assert result(run_folder(tmp_path, "modpo", 0.6))["status"] == "done"


def test_a_broken_reward_adapter_is_made_again(copied):
    adapter = run_folder(copied, "reward_model") / "adapter"
    weights = adapter / "adapter_model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:1000])
    ended = alignlab("w=0.2", cwd=copied)
    assert ended.returncode == 0, ended.stderr
    assert "adapter_model.safetensors was changed or damaged" in " ".join(ended.stdout.split())
    assert weights.read_bytes() == before


def test_another_run_is_refused_in_a_folder_that_holds_one(copied):
    folder = run_folder(copied, "modpo", 0.3).relative_to(copied)
    ended = alignlab("w=0.7", f"hydra.run.dir='{folder}'", cwd=copied)
    assert ended.returncode == 2
    assert "holds another run" in ended.stderr
    assert result(copied / folder)["w"] == 0.3
    again = alignlab("w=0.3", f"hydra.run.dir='{folder}'", cwd=copied)  # control: the same run is welcome
    assert again.returncode == 0, again.stderr
    assert "done before" in again.stdout
