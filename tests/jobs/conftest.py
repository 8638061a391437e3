"""One whole run of the small toy, shared by the tests of killed, resumed and repeated runs."""

import shutil

import pytest

from support.commands import alignlab


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A folder in which `w=0.5` ran from nothing to its end without a break: runs/ and cache/."""
    folder = tmp_path_factory.mktemp("whole")
    ended = alignlab("w=0.5", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of that folder, times and all."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path
