"""Killed at ten random moments, the same command ends with the files of an undisturbed one."""

import json
import random
import time

import pytest

from support.commands import alignlab
from support.own_pairs import on_prompts

KILLS = 10
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
    given = (*on_prompts(base, tmp_path, 16), "generator.prompts=4", "trainer.max_steps=6", *COMMANDS[command])

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


def test_one_bit_of_an_adapter_and_one_metric_are_seen(tmp_path):
    """Control of `left`."""
    run = tmp_path / "runs" / "modpo"
    run.mkdir(parents=True)
    (run / "adapter_model.safetensors").write_bytes(b"\x00")
    (run / "result.json").write_text('{"status": "done", "metrics": {"kl": 1.0}, "seconds": 3}')
    whole = left(tmp_path)
    (run / "result.json").write_text('{"status": "done", "metrics": {"kl": 1.0}, "seconds": 4}')
    assert left(tmp_path) == whole
    (run / "adapter_model.safetensors").write_bytes(b"\x01")
    (run / "result.json").write_text('{"status": "done", "metrics": {"kl": 1.5}, "seconds": 3}')
    own = left(tmp_path)
    assert [name for name in whole if own[name] != whole[name]] == list(whole)
    assert len(whole) == 2
