"""The pictures of docs/gallery.md: the pages of the embedded default, photographed in a headless Chromium.

    python -m benchmarks.gallery            # after `make demo` in the same folder; writes docs/gallery/

Finished runs are not run again. Needs the extra `dev` and Debian's chromium (`apt install chromium`).
"""

import argparse
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from alignlab.cli import main as alignlab

COMMANDS = (
    ("--config-name", "w_front"),
    ("algorithm=course_correction",),
    ("algorithm=synthesis",),
    ("algorithm=audit",),
)
"""What is run: the sweep of `make demo`, and each page of a single run."""
CHOSEN = ("0.3", "0.9")
"""The w of the two policies that are compared."""
HEIGHT = 900
"""Of a window, in pixels; the layout at 400 pixels is a telephone's."""


@dataclass(frozen=True)
class Shot:
    """One picture."""

    name: str
    page: str
    """A pattern below the root of the runs; the newest file is taken."""
    width: int = 1280
    scheme: str = "light"
    anchor: str = ""
    below: str | None = None
    """Selector of what the picture begins with; the page's own beginning otherwise."""


FRONT = "front/tiny/toy/sweep-*/front.html"
SHOTS = (
    Shot("front_1280_light", FRONT, anchor="chosen"),
    Shot("front_1280_dark", FRONT, scheme="dark", anchor="chosen"),
    Shot("front_400_light", FRONT, width=400),
    Shot("front_400_dark", FRONT, width=400, scheme="dark"),
    Shot("compare_1280_light", FRONT, anchor="chosen", below="#detail"),
    Shot("index_1280_light", "index.html"),
    Shot("course_correction_1280_light", "course_correction/tiny/toy/*/index.html"),
    Shot("synthesis_1280_light", "synthesis/tiny/toy/*/index.html"),
    Shot("audit_1280_light", "audit/tiny/toy/*/*/index.html"),
)


def main() -> int:
    """Run what the pages are of, and photograph these."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("docs/gallery"))
    parser.add_argument("overrides", nargs="*", help="further alignlab overrides")
    arguments = parser.parse_args()
    for command in COMMANDS:
        code = alignlab([*command, f"paths.runs={arguments.runs}", *arguments.overrides])
        if code:
            return code
    arguments.out.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for shot in SHOTS:
            print(photograph(browser, shot, arguments.runs, arguments.out))
    return 0


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser.

    Raises:
        SystemExit: where there is none.
    """
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if path is None:
        raise SystemExit("chromium: not found; apt install chromium")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield browser
        browser.close()


def photograph(browser: Any, shot: Shot, runs: Path, out: Path) -> Path:
    """Open a page as the shot says and save what is in the window.

    Args:
        browser: of `chromium`.
        shot: what to take.
        runs: root of the runs.
        out: folder of the pictures.

    Raises:
        SystemExit: where there is no such page.
    """
    pages = sorted(runs.glob(shot.page), key=lambda file: file.stat().st_mtime)
    if not pages:
        raise SystemExit(f"{runs}/{shot.page}: no such page")
    phone = {"has_touch": True, "is_mobile": True} if shot.width < 500 else {}
    tab = browser.new_page(viewport={"width": shot.width, "height": HEIGHT}, color_scheme=shot.scheme, **phone)
    tab.goto(pages[-1].resolve().as_uri())
    if shot.page == FRONT:
        tab.wait_for_selector("html[data-ready]")
        if shot.anchor:
            choose(tab, CHOSEN)
        tab.wait_for_selector("#plot .annotation")
    if shot.below is not None:
        tab.evaluate(
            "(name) => scrollTo(0, document.querySelector(name).getBoundingClientRect().y + scrollY)", shot.below
        )
    tab.wait_for_timeout(500)
    path = out / f"{shot.name}.png"
    tab.screenshot(path=path)
    tab.close()
    with Image.open(path) as picture:
        fewer = picture.convert("RGB").quantize(128)
    fewer.save(path, optimize=True)
    return path


def choose(tab: Any, weights: Sequence[str]) -> None:
    """Choose policies by their w, and leave no head or row under the pointer."""
    for w in weights:
        tab.locator("tr.policy", has=tab.locator(f"td:nth-child(2):text-is('{w}')")).click()
    tab.wait_for_selector("#detail .prompt")
    tab.mouse.move(0, 0)


if __name__ == "__main__":
    raise SystemExit(main())
