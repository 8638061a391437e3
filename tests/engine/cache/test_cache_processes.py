"""Several processes on one cache, killed ones among them. They are forked: the cache meets real processes."""

import multiprocessing
import os
import signal
import time
from itertools import chain

import pytest

from alignlab.engine.cache import scores as module
from alignlab.engine.cache.scores import ScoreCache
from alignlab.models.prompts import Encoded
from support.counting import Counting, last_tokens, table_of

MANY = [Encoded([1, number // 4], [number]) for number in range(20)]
fork = multiprocessing.get_context("fork")


def forked(work, *arguments):
    process = fork.Process(target=work, args=arguments)
    process.start()
    return process


def ended(process):
    process.join(60)
    assert process.exitcode is not None, "did not end"
    return process.exitcode


def slowly(root, rows, results, start):
    """Scores rows in a process of its own, each call taking a while, and tells what it computed."""
    module.ROWS_A_CLAIM = 2
    compute = Counting()

    def take_a_while(missing):
        time.sleep(0.02)
        return compute(missing)

    cache = ScoreCache(root)
    start.wait()
    scores = cache.scores("scorer", rows, take_a_while, name="x").tolist()
    results.put((scores, list(chain(*compute.calls)), cache.counts["x"].computed, cache.counts["x"].reused))


def run_together(root, parts):
    results, start = fork.Queue(), fork.Barrier(len(parts))
    processes = [forked(slowly, root, rows, results, start) for rows in parts]
    told = [results.get(timeout=60) for _ in processes]
    assert [ended(process) for process in processes] == [0] * len(parts)
    return told


def test_processes_that_start_together_compute_each_row_once_and_share_the_work(tmp_path):
    told = run_together(tmp_path, [MANY] * 3)
    assert all(scores == last_tokens(MANY) for scores, *_ in told)
    assert sorted(chain(*(computed for _, computed, *_ in told))) == last_tokens(MANY)
    assert all(computed + reused == len(MANY) for *_, computed, reused in told)
    assert sum(1 for _, computed, *_ in told if computed) > 1
    assert {file.name.split(".", 1)[1] for file in tmp_path.iterdir()} == {"parquet", "parquet.lock"}


def test_without_claims_the_work_is_done_twice(tmp_path, monkeypatch):
    """Control: the processes of the test above do meet."""
    monkeypatch.setattr(module, "others_claims", lambda *_: [])
    told = run_together(tmp_path, [MANY] * 3)
    assert sum(len(computed) for _, computed, *_ in told) > len(MANY)


def test_processes_that_write_other_rows_lose_none(tmp_path):
    told = run_together(tmp_path, [MANY[:8], MANY[6:14], MANY[12:]])
    assert sorted(chain(*(computed for _, computed, *_ in told))) == last_tokens(MANY)
    compute = Counting()
    assert ScoreCache(tmp_path).scores("scorer", MANY, compute, name="x").tolist() == last_tokens(MANY)
    assert compute.asked == 0


def test_a_process_does_not_wait_for_rows_that_it_does_not_need(tmp_path):
    entered, leave = fork.Event(), fork.Event()

    def stay(rows):
        entered.set()
        assert leave.wait(60)
        return Counting()(rows)

    process = forked(lambda: ScoreCache(tmp_path).scores("scorer", MANY[:5], stay, name="x"))
    assert entered.wait(60)
    scores = ScoreCache(tmp_path).scores("scorer", MANY[5:], Counting(), name="x")  # would wait for ever
    leave.set()
    assert ended(process) == 0
    assert scores.tolist() == last_tokens(MANY[5:])
    assert ScoreCache(tmp_path).scores("scorer", MANY, None, name="x").tolist() == last_tokens(MANY)


class KillsItself(Counting):
    """Dies in its nth call, as a process that was killed does."""

    def __init__(self, nth):
        super().__init__()
        self.nth = nth

    def __call__(self, rows):
        if len(self.calls) + 1 == self.nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(rows)


def test_a_killed_computation_goes_on_from_what_it_wrote(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS_A_CLAIM", 4)
    monkeypatch.setattr(module, "SECONDS_A_WRITE", 0.0)
    process = forked(lambda: ScoreCache(tmp_path).scores("scorer", MANY, KillsItself(4), name="x"))
    assert ended(process) == -signal.SIGKILL
    assert len(list(tmp_path.glob("*.claim"))) == 1
    compute = Counting()
    assert ScoreCache(tmp_path).scores("scorer", MANY, compute, name="x").tolist() == last_tokens(MANY)
    assert list(chain(*compute.calls)) == last_tokens(MANY)[12:]  # the three claims before it were written
    assert not list(tmp_path.glob("*.claim*"))


def test_a_process_that_waits_for_one_that_is_killed_takes_its_rows_on(tmp_path):
    entered = fork.Event()

    def stay_and_die(rows):
        entered.set()
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    process = forked(lambda: ScoreCache(tmp_path).scores("scorer", MANY, stay_and_die, name="x"))
    assert entered.wait(60)
    compute = Counting()
    assert ScoreCache(tmp_path).scores("scorer", MANY, compute, name="x").tolist() == last_tokens(MANY)
    assert ended(process) == -signal.SIGKILL
    assert compute.asked == len(MANY)


def test_an_error_costs_only_the_rows_in_flight(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS_A_CLAIM", 4)
    compute = Counting()

    def fail(rows):
        if len(compute.calls) == 3:
            raise KeyboardInterrupt
        return compute(rows)

    with pytest.raises(KeyboardInterrupt):
        ScoreCache(tmp_path).scores("scorer", MANY, fail, name="x")
    again = Counting()
    assert ScoreCache(tmp_path).scores("scorer", MANY, again, name="x").tolist() == last_tokens(MANY)
    assert again.asked == len(MANY) - compute.asked == 8


def test_a_process_that_is_killed_while_it_writes_leaves_the_old_table_whole(tmp_path):
    ScoreCache(tmp_path).scores("scorer", MANY[:10], Counting(), name="x")
    before = table_of(tmp_path).read_bytes()

    def die_before_the_rename():
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        ScoreCache(tmp_path).scores("scorer", MANY, Counting(), name="x")

    assert ended(forked(die_before_the_rename)) == -signal.SIGKILL
    assert len(list(tmp_path.glob(".*.parquet.*"))) == 1  # what it had begun to write
    assert table_of(tmp_path).read_bytes() == before
    compute = Counting()
    assert ScoreCache(tmp_path).scores("scorer", MANY, compute, name="x").tolist() == last_tokens(MANY)
    assert compute.asked == 10
    assert not list(tmp_path.glob(".*.parquet.*"))


def test_a_table_that_is_damaged_during_a_computation_is_filled_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS_A_CLAIM", 4)
    ScoreCache(tmp_path).scores("scorer", MANY[:10], Counting(), name="x")

    class Breaks(Counting):
        def __call__(self, rows):
            if not self.calls:
                table_of(tmp_path).write_bytes(b"")
            return super().__call__(rows)

    compute = Breaks()
    assert ScoreCache(tmp_path).scores("scorer", MANY, compute, name="x").tolist() == last_tokens(MANY)
    assert compute.asked == len(MANY)
