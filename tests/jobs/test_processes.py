"""Two processes train what one process trains with twice the accumulation."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from commands import REPOSITORY, SMALL, alignlab, losses, own_process, result, run_folder
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
# Batches of 16 from 160 pairs, 13 steps: past the end of the data, and with pairs of different lengths on the two.
BATCH = ("trainer.per_device_train_batch_size=8", "trainer.gradient_accumulation_steps=2")
RECIPE = (*BATCH, "peft.dropout=0", "w=0.6", "seed=1")


@pytest.fixture(scope="module")
def both(whole, tmp_path_factory):
    """The folders of one command on one process and on two."""
    found = []
    for hardware in ("cpu", "cpu_2"):
        folder = tmp_path_factory.mktemp(hardware)
        shutil.copytree(whole / "cache", folder / "cache")
        ended = alignlab(*RECIPE, f"hardware={hardware}", cwd=folder, small=LAST_BATCH_SHORT)
        assert ended.returncode == 0, ended.stderr
        found.append(run_folder(folder, "modpo"))
    return found


LAST_BATCH_SHORT = tuple(
    "trainer.max_steps=12" if setting.startswith("trainer.max_steps") else setting
    for setting in SMALL
    if not setting.startswith(("peft.dropout", "trainer.per_device"))
)
