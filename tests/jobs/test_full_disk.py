"""A disk that is full says so in one line; with room again the same command ends as an undisturbed one does."""

import contextlib
import os
import shutil
import subprocess

import pytest

from support.commands import SMALL, alignlab
from support.unbroken import differences, left

COMMANDS = {
    "training and sampling": ("w=0.3", *SMALL),
    "synthesis": ("algorithm=synthesis", "dataset.requests=1", "dataset.max_rows=12", "model.pretraining.rows=1000"),
}
ROOM_KIB = (0, 40, 150, 400, 900)
"""What the disk has left at the beginning; a run takes 1 to 2 MiB."""


@pytest.fixture
def disk(tmp_path):
    """A file system of 64 MiB of its own."""
    image, folder = tmp_path / "disk.img", tmp_path / "disk"
    if os.geteuid() != 0:
        pytest.skip("mounting a disk needs root")
    folder.mkdir()
    with image.open("wb") as stream:
        stream.truncate(64 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a disk cannot be made or mounted here: {getattr(error, 'stderr', None) or error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk, leaving_kib):
    """Take all room of a disk but so much."""
    with (disk / "filler").open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:  # the last write of all fails, or writes a part
            stream.write(bytes(1 << 16))
    os.truncate(disk / "filler", max((disk / "filler").stat().st_size - (leaving_kib << 10), 0))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_costs_nothing_but_time(whole, disk, name):
    here = disk / "here"

    def begin():
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(whole / "cache", here / "cache")

    def run():
        # Its output goes elsewhere: it is not what must fit.
        return alignlab(*COMMANDS[name], cwd=here, small=())

    begin()
    assert run().returncode == 0
    undisturbed = left(here)
    begin()
    failures = 0
    for room in ROOM_KIB:
        fill(disk, room)
        ended = run()
        (disk / "filler").unlink()
        if ended.returncode == 0:
            break
        failures += 1
        assert ended.returncode == 1, ended.stderr
        assert "no room to write" in ended.stderr, ended.stderr
        assert "MiB free" in ended.stderr
        assert "Traceback" not in ended.stderr, ended.stderr
    assert failures > 1
    assert run().returncode == 0
    assert differences(left(here), undisturbed) == []
