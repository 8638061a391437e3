"""A real sweep on wandb, offline: killed once and resumed it is one group of three runs, and a summary."""

import importlib.util
import shutil

import pytest

from support.commands import alignlab
from support.trackers import wandb_records

STEP = "alignlab.training.callbacks:ProgressCallback.on_step_end"


def tracked(cwd):
    """Id of each run on wandb -> all that its files hold, of all its sessions."""
    found = {}
    for file in sorted(cwd.glob("runs/**/wandb/offline-run-*/*.wandb")):
        name = file.stem.removeprefix("run-")
        found[name] = found.get(name, b"") + wandb_records(file)
    return found


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is an extra")
def test_a_sweep_killed_once_and_resumed_is_three_runs_and_a_summary(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    command = ("-m", "w=0.3,0.6,0.7", "tracker=wandb_offline")
    ended = alignlab(*command, cwd=tmp_path, breaks=(STEP, 6 + 3, "SIGKILL"))
    assert ended.returncode == -9
    begun = set(tracked(tmp_path))
    assert len(begun) == 2, "the second of three was killed"
    ended = alignlab(*command, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = tracked(tmp_path)
    assert len(found) == 3 + 1
    assert begun <= set(found), "the killed one goes on as itself"
    runs = {name: text for name, text in found.items() if b"final/helpful/mean" in text}
    assert len(runs) == 3
    for text in runs.values():
        assert b"per_device_train_batch_size" in text
        assert b"train_loss" in text
        assert b"modpo/tiny/toy" in text, "the group"
    (summary,) = set(found) - set(runs)
    assert b"modpo/tiny/toy" in found[summary]
    media = {"table/samples*": 3, "table/front_[0-9]*": 1, "table/front_plot*": 1, "images/front_picture*": 1}
    for kind, of in media.items():
        assert len(list(tmp_path.glob(f"runs/**/wandb/offline-run-*/files/media/{kind}"))) == of, kind
