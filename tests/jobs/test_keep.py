"""dataset.keep on a run: what it trains on, and what it says."""

import shutil

from alignlab.cli import main
from support.commands import alignlab, assert_refused, result, run_folder


def test_a_run_trains_on_consistent_pairs_and_counts_the_others(whole, tmp_path):
    shutil.copytree(whole / "cache", tmp_path / "cache")
    ended = alignlab("algorithm=dpo", "dataset.keep=consistent", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = result(run_folder(tmp_path, "dpo"))
    kept = found["kept"]
    assert found["rows"]["train"] == kept["alike"]
    assert kept["alike"] > 20
    assert kept["opposite"] > 20, "the toy's objectives conflict"
    assert kept["objectives"] == ["better", "safer"]
    assert f"{kept['alike']} pairs ranked alike by better, safer" in ended.stdout


def test_another_word_is_refused(tmp_path, capfd):
    code = main(["algorithm=dpo", "dataset.keep=agreed", f"paths.runs={tmp_path}/runs"])
    assert_refused(code, capfd, "dataset.keep=agreed: ")
