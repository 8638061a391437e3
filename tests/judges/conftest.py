"""A judge at work in a run folder."""

import json

import pytest

from alignlab.io.records import Records
from alignlab.judges import load_judge
from support.judging import Judged


@pytest.fixture
def judge_into(tmp_path):
    """(config, items) -> verdicts.jsonl in a folder, resumed from what lies there."""

    def run(config, items, folder="run", cache=None):
        judge = load_judge(config, cache=tmp_path / cache if cache else None, folder=tmp_path / folder)
        path = tmp_path / folder / "verdicts.jsonl"
        with Records(path, [item.id for item in items], made_for={"judge": judge.id}) as records:
            missing = set(records.missing())
            judge.verdicts([item for item in items if item.id in missing], lambda verdict: records.add(verdict.row()))
            records.finish()
        data = path.read_bytes()
        return Judged([json.loads(line) for line in data.splitlines()], data, judge.report.record())

    return run
