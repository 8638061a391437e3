"""The client killed at twenty points and resumed: nothing lost, nothing doubled, no call made twice that had ended."""

import json
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from alignlab.judges.wording import JSON_FORM, build_prompt, prompt_id
from support.judging import truth
from support.killed_judge import ITEMS, WORDINGS
from support.servers import FaultServer

DRIVER = Path(__file__).parents[1] / "support" / "killed_judge.py"
KILLS = 10
"""For each number of workers."""


class Driver:
    """Attempts at runs, one after the other."""

    def __init__(self, url):
        self._process = subprocess.Popen(
            [sys.executable, str(DRIVER), url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def attempt(self, folder, server, workers, kill_after=None):
        """How an attempt ended."""
        child = int(self._tell(f"{folder} {server.url} {workers}"))
        if kill_after is not None:
            server.kill_client(child, after=kill_after)
        return int(self._tell("go"))

    def _tell(self, line):
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def close(self):
        self._process.stdin.close()
        self._process.wait(10)


@pytest.fixture(scope="module")
def driver():
    with FaultServer() as server:
        running = Driver(server.url)
        yield running
        running.close()


@pytest.fixture(scope="module")
def whole(driver, tmp_path_factory):
    """verdicts.jsonl of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    with FaultServer() as server:
        assert driver.attempt(folder, server, 8) == 0
    return (folder / "verdicts.jsonl").read_bytes()


def kept_prompts(folder):
    """The prompts whose answers a run has kept."""
    asked = {
        (prompt_id(name, JSON_FORM), item.text_id): build_prompt(item, name) for item in ITEMS for name in WORDINGS
    }
    kept = set()
    for file in (folder / "cache" / "verdicts").rglob("*.jsonl"):
        lines = file.read_bytes().split(b"\n")[:-1]
        kept |= {asked[file.parent.name, json.loads(line.split(b"\t")[0])["text"]] for line in lines}
    return kept


@pytest.mark.parametrize(("workers", "fault", "calls"), [(1, None, 14), (32, "truncated", 16)])
def test_a_judge_that_is_killed_again_and_again_ends_as_if_it_never_was(driver, whole, tmp_path, workers, fault, calls):
    rng = random.Random(workers)
    repeated, most_lost = Counter(), 0
    with FaultServer(fault, pause=0.002) as server:
        for attempt in range(KILLS + 1):
            kept, called, answered = kept_prompts(tmp_path), server.calls.copy(), server.answered.copy()
            kill_after = rng.randint(1, calls) if attempt < KILLS else None
            ended = driver.attempt(tmp_path, server, workers, kill_after)
            assert ended == (-signal.SIGKILL if attempt < KILLS else 0)
            assert kept or attempt < KILLS
            repeated += Counter({prompt: count for prompt, count in (server.calls - called).items() if prompt in kept})
            new = {prompt: count for prompt, count in (server.answered - answered).items() if "garden" not in prompt}
            most_lost = max(most_lost, sum(new.values()) - len(kept_prompts(tmp_path) - kept))
            if attempt == KILLS - 1:
                lines = (tmp_path / "records" / "verdicts.partial.jsonl").read_bytes().count(b"\n")
                assert 0 < lines < len(ITEMS), "killed half-way"
    assert (tmp_path / "verdicts.jsonl").read_bytes() == whole
    rows = [json.loads(line) for line in whole.splitlines()]
    assert [(row["id"], row["corrected"]) for row in rows] == [(item.id, truth(item)) for item in ITEMS]
    assert not repeated, "no call whose answer was known is made again"
    shed = [count for prompt, count in server.answered.items() if "garden shed" in prompt]
    assert sum(shed) - len(shed) <= KILLS * workers, "nor are the known cases"
    assert most_lost <= 2 * workers, (
        "what a kill costs: for each worker an answer not yet written, and a call in flight"
    )
