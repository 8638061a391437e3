"""Debian's chromium, headless, and a small front's page."""

import os
import shutil

import pytest

from alignlab.front.collect import collect
from alignlab.front.page import Names, write_front_page
from support.fronts import write_front

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    """A browser; without one the test is skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra `dev`")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if as_root else [])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    folder = tmp_path_factory.mktemp("front")
    runs = write_front(folder / "runs", prompts=4)
    path = folder / "front.html"
    return write_front_page(collect(runs), path, names=Names("toy", "tiny"), exact=None, reference=[1.0, 1.0])
