"""The real command in a terminal: one table, which stays whole whatever is written and typed meanwhile."""

import shutil
import time

import pytest

from support.commands import alignlab, result, run_folder
from support.terminal import terminal

pytestmark = pytest.mark.slow
TRAINING_STEP = "alignlab.training.callbacks:ProgressCallback.on_step_end"


@pytest.fixture
def copied(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path


def seen(shown):
    end = time.monotonic() + 20
    while "front.html" not in shown.text and time.monotonic() < end:
        time.sleep(0.05)
    return shown.screen()


def test_a_sweep_with_a_failing_run_is_one_table(copied):
    with terminal() as shown:
        ended = alignlab("-m", "w=0.5,0.6,0.7", cwd=copied, breaks=(TRAINING_STEP, 3, "raise"), tty=shown.name)
        screen = seen(shown)
        assert ended.returncode == 1
        assert shown.is_restored()
    assert "\x1b[1A" in shown.text, "control: it was a live table"
    assert "\x1b[?25l" not in shown.text, "the cursor stays"
    above, _, rest = screen.partition("last metrics")
    rows = [line.split("│") for line in rest.splitlines() if line.startswith("│")][:3]
    assert [row[1].strip() for row in rows] == ["w=0.5", "w=0.6", "w=0.7"]
    assert [row[2].strip() for row in rows] == ["done", "failed", "done"]
    assert "RuntimeError: broken by the test" in rows[1][6]
    assert "better " in rows[0][6]
    assert "2 of 3 runs done, 1 failed" in rest
    assert screen.count("last metrics") == 1, "no remains of an earlier drawing"
    assert above.count("running: ") == 2, "what the runs say stands above"
    assert "done before: " in above
    assert "training: " not in screen, "no line of progress beside the table"
    assert rest.count("KL to") >= 1, "the front's own table follows"


def test_a_stopped_sweep_gives_the_terminal_back(copied):
    with terminal() as shown:
        ended = alignlab("-m", "w=0.6,0.7", cwd=copied, breaks=(TRAINING_STEP, 2, "SIGINT"), tty=shown.name)
        assert ended.returncode == 130
        assert shown.is_restored()
        assert "\x1b[1A" in shown.text
        assert "interrupted" in shown.screen()
    assert result(run_folder(copied, "modpo", 0.6))["status"] == "interrupted"
