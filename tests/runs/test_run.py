"""Loading a job leaves the collector its work, and memory where it was."""

import gc
import platform
import subprocess
import sys
import weakref

import pytest

from alignlab.runs.runner import keep_freed_memory, load_job


class Model:
    """Stands for what a job leaves in a circle of references, as trainers do."""

    def __init__(self):
        self.itself = self


def collected_after(between):
    """Whether a circle that was dropped before `between` is gone after a collection."""
    gc.collect()
    gc.disable()  # or it might go by itself
    try:
        left = weakref.ref(Model())
        between()
        gc.collect()
        return left() is None
    finally:
        gc.enable()


def test_what_one_job_left_is_collected_after_the_next_is_loaded():
    load_job("dpo")
    assert collected_after(lambda: load_job("modpo"))


def test_freezing_at_every_load_would_keep_it():
    """Control."""
    assert not collected_after(gc.freeze)
    gc.unfreeze()
    gc.collect()


FAULTS = """
import resource, sys
import numpy as np
from alignlab.runs.runner import keep_freed_memory

def step():
    return sum(float(part[0]) for part in [np.ones(1 << 17) for _ in range(200)])  # all freed at its end

if sys.argv[1] == "keep":
    keep_freed_memory()
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_every_job_asks_for_it():
    load_job("dpo")
    assert keep_freed_memory.cache_info().currsize == 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep their way")
def test_what_a_step_frees_is_there_for_the_next():
    """Counted in pages that the system hands out anew; the control is a process that does not ask for it."""
    pages = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "as it is")
    }
    assert 10 * pages["keep"] < pages["as it is"]
