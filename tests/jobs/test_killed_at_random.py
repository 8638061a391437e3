"""Killed at ten random moments, the same command ends with the files of an undisturbed one."""

import json
import random
import time

import pytest

from alignlab.data.worlds import toy
from support.commands import alignlab

KILLS = 10
SMALL = (
    "dataset=prompts",
    "dataset.pairs.samples=3",
    "generator.max_new_tokens=40",
    "generator.samples=2",
    "generator.prompts=4",
    "scorers.better.kind=length",
    "scorers.safer.kind=length",
    "scorers.safer.unit=words",
    "trainer.max_steps=6",
    "trainer.save_steps=2",
    "trainer.logging_steps=1",
    "trainer.learning_rate=1.0e-3",
    "trainer.per_device_train_batch_size=8",
    "trainer.max_length=80",
    "peft.dropout=0.1",
)
COMMANDS = {
    "sweep": ("-m", "w=0.3,0.7"),
    "rounds": ("algorithm=rebel", "algorithm.rounds=2", "w=0.5"),
}
LEFT_OUT = ("job.log", "multirun.yaml", "index.html", "config.json", "progress.json", "timing.json")
"""Files that hold times, or where a run lies; pictures and pages are drawn from the others."""


def left(folder):
    """File -> its bytes, of all that the runs below a folder hold; a result without seconds, a log without times."""
    found = {}
    for file in (folder / "runs").rglob("*"):
        parts = file.relative_to(folder).parts
        skipped = file.name in LEFT_OUT or file.suffix in (".lock", ".png", ".svg", ".pdf", ".html")
        if not file.is_file() or skipped or "checkpoints" in parts or any(part.startswith(".") for part in parts):
            continue
        found["/".join(parts)] = _without_times(file)
    return found


def _without_times(file):
    if file.name == "result.json":
        kept = json.loads(file.read_text())
        return {name: kept[name] for name in ("status", "metrics", "rows", "weights", "rewards") if name in kept}
    if file.name == "metrics.jsonl":
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        return [[row.get(name) for name in ("step", "loss", "grad_norm")] for row in rows]
    if file.name == "front.csv":
        return sorted(line.partition(",")[0] for line in file.read_text().splitlines())
    return file.read_bytes()


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_ten_random_moments_it_ends_the_same(base, tmp_path, command):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in toy.all_prompts()[:16]))
    model = ["model=hf", f"model.path={base.path}", "model.prompt_template=user: {raw_prompt} assistant: "]
    given = (*COMMANDS[command], *SMALL, f"dataset.path={file}", *model)

    def run(folder, **how):
        folder.mkdir(exist_ok=True)
        return alignlab(*given, cwd=folder, small=(), **how)

    started = time.monotonic()
    assert run(tmp_path / "once").returncode == 0
    seconds = time.monotonic() - started
    whole = left(tmp_path / "once")
    assert sum(name.endswith("adapter_model.safetensors") for name in whole) == 2
    assert any(name.endswith("generations.jsonl") for name in whole)

    rng, kills, folders = random.Random(0), 0, 0
    while kills < KILLS:
        folder = tmp_path / f"killed{folders}"
        folders += 1
        while kills < KILLS:
            ended = run(folder, killed_after=rng.uniform(0.05, 0.6) * seconds)
            assert ended.returncode in (0, -9), ended.stderr
            kills += ended.returncode == -9
            if ended.returncode == 0:
                break
        ended = run(folder)
        assert ended.returncode == 0, ended.stderr
        own = left(folder)
        assert own.keys() == whole.keys()
        assert [name for name in whole if own[name] != whole[name]] == []
