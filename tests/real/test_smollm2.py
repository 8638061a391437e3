"""A real chat model of 135M parameters ends a sweep in a front of what its policies say: `make real`.

ALIGNLAB_SMOLLM2 names its folder, which `python -m benchmarks.smollm2 FOLDER` makes; without it they are skipped.
"""

import csv
import json
import os

import pytest

from support.commands import alignlab

MODEL = os.environ.get("ALIGNLAB_SMOLLM2")
SUBJECTS = ("a bicycle", "bread", "the moon", "a garden", "chess", "rain", "a library", "tea", "maps", "bees", "glass")
ASKED = ("Tell me about {}.", "What is {} good for?", "Write one sentence on {}.")

pytestmark = pytest.mark.skipif(MODEL is None, reason="ALIGNLAB_SMOLLM2 names no folder with SmolLM2")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two w, pairs of the model's own answers, three steps each, scored by two rules about length."""
    folder = tmp_path_factory.mktemp("real")
    prompts = [ask.format(subject) for subject in SUBJECTS for ask in ASKED]
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    ended = alignlab(*COMMAND, cwd=folder, small=())
    assert ended.returncode == 0, ended.stderr
    return folder, ended


COMMAND = (
    "-m",
    "algorithm=modpo",
    "w=0.2,0.8",
    "model=hf",
    f"model.path={MODEL}",
    "dataset=prompts",
    "dataset.path=prompts.jsonl",
    "scorers.better.kind=length",
    "scorers.safer.kind=length",
    "scorers.safer.unit=words",
    "generator.max_new_tokens=16",
    "generator.samples=2",
    "trainer.max_steps=3",
    "trainer.per_device_train_batch_size=4",
    "paths.runs=runs",
    "tracker=local",
)


def front_rows(folder):
    (file,) = (folder / "runs" / "front").rglob("front.csv")
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_real_models_sweep_ends_in_a_scored_front(sweep):
    folder, ended = sweep
    rows = front_rows(folder)
    assert [row["algorithm"] for row in rows] == ["modpo", "modpo", "reference"]
    assert all(row["better_reward_mean"] and row["safer_reward_mean"] for row in rows)
    assert all(float(row["kl_mean"]) > 0 for row in rows[:2])
    assert float(rows[2]["kl_mean"]) == 0
    assert "Traceback" not in ended.stderr


def test_the_same_command_again_trains_and_samples_nothing(sweep):
    folder, _ = sweep
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("adapter_model.safetensors")}
    again = alignlab(*COMMAND, cwd=folder, small=())
    assert again.returncode == 0, again.stderr
    assert "training:" not in again.stdout
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("adapter_model.safetensors")} == before
