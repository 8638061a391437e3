"""What several training processes tell the one that started them."""

import subprocess
import sys

from alignlab.runs import progress as shown
from alignlab.runs.activity import activity
from alignlab.training import launch


def test_processes_of_a_training_are_shown_as_its_own_progress(tmp_path, monkeypatch, capsys):
    """Of torchrun a stand-in, which tells where the first process would."""
    monkeypatch.setattr(launch, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(shown, "LINE_SECONDS", 0.02)
    monkeypatch.setattr(shown, "SILENT_SECONDS", 0.05)
    tell = (
        "import sys, time\n"
        "from alignlab.runs.activity import activity, at_work\n"
        "from alignlab.runs.progress import hide_bars, progress\n"
        "from pathlib import Path\n"
        "hide_bars()\n"
        "with at_work(Path(sys.argv[1]), launched=True), progress('training', 60) as count:\n"
        "    count.advance(12); activity.log({'loss': 0.5}); sys.stdin.read(1); sys.exit(7)\n"
    )
    command = [sys.executable, "-c", tell, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as started:
        said = ""

        def look(**_):
            nonlocal said
            said += capsys.readouterr().out
            if "training: 12 of 60" in said:
                started.stdin.close()

        real = launch.told_in
        monkeypatch.setattr(launch, "told_in", lambda *given, **named: (look(), real(*given, **named))[1])
        assert launch.wait_for(started, tmp_path) == 7
    assert "training: 12 of 60" in said
    assert activity.metrics == {"loss": 0.5}
