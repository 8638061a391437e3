"""Every algorithm killed at its writes, steps and records: the same command ends with the files of an unbroken one."""

import json
import shutil
from dataclasses import fields

import pytest

from alignlab.config.schema import VARIANTS
from support.commands import SMALL, alignlab, run_folder
from support.servers import MODEL, FaultServer
from support.unbroken import differences, left, make_old

GOLD = ("scorers.better.kind=gold", "scorers.safer.kind=gold")
CONDITIONED = ("reward=gold", "algorithm.normalise=false", "algorithm.export_at=[0.2]")
REQUESTS = ("dataset.requests=1", "dataset.max_rows=6", "algorithm.near_duplicates=1")
WALKS = {
    "audit": ["algorithm.adapter={modpo}"],
    "best_of_n": ["w=0.3", "algorithm.n=2", "generator.samples=4"],
    "choose": ["algorithm.runs=[runs/modpo]", "target.safer=-5"],
    "clean": ["algorithm.remove=true"],
    "course_correction": ["dataset.requests=1", "dataset.max_rows=4", "algorithm.k=[2,8]"],
    "course_correction asking": ["dataset.requests=1", "dataset.max_rows=4", "algorithm.k=[2]", "{judge}"],
    "dpo": ["algorithm.objective=safer"],
    "dpo_lw": ["w=0.3"],
    "evaluate": ["algorithm.adapter={modpo}", *GOLD],
    "export": ["algorithm.adapter={modpo_conditioned}", "w=0.3"],
    "front": [],
    "grpo": ["w=0.3", "reward=gold", "algorithm.generations=4"],
    "index": [],
    "logit_mix": ["w=0.3"],
    "merge": ["algorithm.adapter={modpo}"],
    "modpo": ["w=0.3", "reward=classifier"],
    "modpo_conditioned": [*CONDITIONED, "seed=1"],
    "pairs": [*GOLD, "dataset.max_rows=12"],
    "preview": [*GOLD],
    "publish": ["algorithm.formats=[card]"],
    "raco": ["w=0.3"],
    "rebel": ["w=0.3", "reward=gold"],
    "reward_model implicit": ["algorithm.objective=better"],
    "reward_model classifier": ["algorithm.kind=classifier", "algorithm.objective=safer"],
    "reward_model full": ["algorithm.kind=classifier", "algorithm.full=true", "algorithm.objective=safer"],
    "reward_model cost": ["algorithm.kind=cost"],
    "reward_model probe": ["algorithm.kind=probe", "algorithm.objective=safer"],
    "safedpo": ["algorithm.offset=1"],
    "sft": [],
    "soup": ["w=0.3"],
    "synthesis": ["dataset.requests=1", "dataset.max_rows=12"],
    "synthesis filtered": ["dataset.requests=1", "dataset.max_rows=6", "algorithm.filter=judge", "{judge}"],
}
"""Algorithm, and what tells its walks apart -> settings; {...} is an adapter's folder, or a judge behind a server."""
QUICK = ("choose", "export")
MOST_KILLS = 8


def test_every_algorithm_is_killed():
    assert {name.partition(" ")[0] for name in WALKS} == set(VARIANTS["algorithm"])


@pytest.fixture(scope="module")
def start(whole, tmp_path_factory):
    """A folder with a reference, a MODPO run, a conditioned one, and their front."""
    folder = tmp_path_factory.mktemp("start") / "start"
    shutil.copytree(whole, folder)
    bare = [setting for setting in SMALL if not setting.startswith("algorithm.")]
    for given, small in ((("algorithm=modpo_conditioned", *CONDITIONED), SMALL), (("algorithm=front",), bare)):
        ended = alignlab(*given, cwd=folder, small=small)
        assert ended.returncode == 0, ended.stderr
    return folder


class Walk:
    """One command, run in one folder from the same start again and again."""

    def __init__(self, start, folder, name, judge):
        algorithm = name.partition(" ")[0]
        adapters = {one: run_folder(start, one) / "adapter" for one in ("modpo", "modpo_conditioned")}
        filled = {one: str(adapter.relative_to(start)) for one, adapter in adapters.items()}
        own = [part for setting in WALKS[name] for part in setting.format(**filled, judge=judge).split()]
        keys = {field.name for field in fields(VARIANTS["algorithm"][algorithm])}
        small = [setting for setting in SMALL if not setting.startswith("algorithm.") or "beta" in keys]
        self._given, self._start, self.folder = (f"algorithm={algorithm}", *small, *own), start, folder

    def begin(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._start, self.folder)

    def killed_at(self, nth):
        """Whether the command did not get past its nth event."""
        ended = alignlab(*self._given, cwd=self.folder, small=(), dies_at=nth)
        assert ended.returncode in (0, -9), ended.stderr
        make_old(self.folder)
        return ended.returncode == -9

    def to_the_end(self):
        """What the command leaves, and its events."""
        ended = alignlab(*self._given, cwd=self.folder, small=(), dies_at=0)
        assert ended.returncode == 0, ended.stderr
        return left(self.folder), (self.folder / "events.txt").read_text().splitlines()


def check_walk(walk):
    """Kill the command at a fifth of an unbroken one's events, over and over; and anew at the last one."""
    walk.begin()
    whole, events = walk.to_the_end()
    assert len(events) > 3
    walk.begin()
    kills = 0
    while kills < MOST_KILLS and walk.killed_at(1 + len(events) // 5):
        kills += 1
    assert kills > 0
    assert differences(walk.to_the_end()[0], whole) == [], f"killed {kills} times"
    walk.begin()
    walk.killed_at(len(events))
    assert differences(walk.to_the_end()[0], whole) == [], f"killed at {events[-1]}"


@pytest.mark.parametrize("name", QUICK)
def test_killed_and_run_again_it_leaves_the_same(start, tmp_path, name):
    check_walk(Walk(start, tmp_path / "here", name, ""))


@pytest.mark.parametrize("name", [name for name in WALKS if name not in QUICK])
def test_killed_and_run_again_long_work_leaves_the_same(start, tmp_path, name):
    with FaultServer(pause=0.002) as server:
        judge = f"judge=openai judge.base_url={server.url} judge.model={MODEL} judge.api_key_env=null judge.workers=2"
        check_walk(Walk(start, tmp_path / "here", name, judge))


def test_one_bit_one_number_and_one_folder_are_seen(tmp_path):
    """Control of `differences`."""
    run = tmp_path / "runs" / "modpo"
    run.mkdir(parents=True)
    (run / "adapter_model.safetensors").write_bytes(b"\x00")
    (run / "result.json").write_text(json.dumps({"metrics": {"kl": [1.0]}, "seconds": {"total": 3}}))
    whole = left(tmp_path)
    (run / "result.json").write_text(json.dumps({"metrics": {"kl": [1.0]}, "seconds": {"total": 4}}))
    assert differences(left(tmp_path), whole) == []
    (run / "adapter_model.safetensors").write_bytes(b"\x01")
    (run / "result.json").write_text(json.dumps({"metrics": {"kl": [1.5]}, "seconds": {"total": 3}}))
    (run / ".adapter.01234567").mkdir()
    found = differences(left(tmp_path), whole)
    assert [line.split(": ")[0] for line in found] == [
        f"runs/modpo/{name}" for name in (".adapter.01234567", "adapter_model.safetensors", "result.json")
    ]
