"""Records: none lost, none doubled, and the same bytes in the end, whatever happened on the way."""

import json
import os
import random
import signal
import subprocess
import sys
import zlib

import pytest

from alignlab.errors import ConfigError
from alignlab.io import records as module
from alignlab.io.records import Records

IDS = [f"{number:02d}" for number in range(12)]
MADE_FOR = {"judge": "rules", "wordings": ["a", "b"]}


def record(key):
    return {"id": key, "text": f"grün\n\u2028 {key} \ud800", "corrected": None}


def filled(path, keys, expected=IDS):
    with Records(path, expected, made_for=MADE_FOR) as records:
        for key in keys:
            records.add(record(key))
    return path.parent / "records" / "a.partial.jsonl"


def finished(path, order=IDS):
    filled(path, order)
    with Records(path, IDS, made_for=MADE_FOR) as records:
        records.finish()
    return path.read_bytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "a.jsonl"


def test_the_final_file_is_sorted_by_id_and_nothing_else_is_in_the_way(path):
    rows = [json.loads(line) for line in finished(path, IDS[::-1]).split(b"\n")[:-1]]
    assert rows == [record(key) for key in IDS]
    assert sorted(item.name for item in (path.parent / "records").iterdir()) == ["a.lock", "a.manifest.json"]


def test_neither_order_nor_crashes_change_the_bytes(tmp_path):
    whole = finished(tmp_path / "a.jsonl")
    rng = random.Random(0)
    for trial in range(10):
        path = tmp_path / str(trial) / "a.jsonl"
        order = rng.sample(IDS, len(IDS))
        for key in order:
            partial = filled(path, [key])
            if rng.random() < 0.5:
                with partial.open("ab") as stream:
                    stream.write(b'{"id": "half')
        assert finished(path, []) == whole


def test_what_is_missing_is_a_difference_of_sets(path):
    filled(path, IDS[3:5])
    with Records(path, IDS, made_for=MADE_FOR) as records:
        assert records.missing() == IDS[:3] + IDS[5:]
        assert list(records.rows()) == [record(key) for key in IDS[3:5]]
        with pytest.raises(ValueError, match=r"10 records are missing, e\.g\. 00"):
            records.finish()
    assert not path.exists()


def test_a_last_line_cut_at_any_byte_costs_that_record_alone(path):
    partial = filled(path, IDS[:3])
    data = partial.read_bytes()
    start = data[:-1].rfind(b"\n") + 1
    assert len(data) - start > 60
    for cut in range(start, len(data)):
        partial.write_bytes(data[:cut])
        torn = partial.with_name("a.torn")
        torn.unlink(missing_ok=True)
        with Records(path, IDS, made_for=MADE_FOR) as records:
            assert records.missing() == IDS[2:]
            assert torn.exists() == (cut > start)
            assert cut == start or torn.read_bytes() == data[start:cut] + b"\n"
            records.add(record(IDS[2]))
        assert partial.read_bytes() == data


def test_glueing_the_next_record_to_a_torn_line_would_lose_both(path):
    """The control: what an append without the cut leads to is seen, not swallowed."""
    partial = filled(path, IDS[:2])
    data = partial.read_bytes()
    partial.write_bytes(data[:-7] + data[: data.find(b"\n") + 1])
    with pytest.raises(ConfigError, match=r"a\.partial\.jsonl:2: damaged"):
        filled(path, [])


def checked(text):
    data = text.encode()
    return data + b"\t%08x\n" % zlib.crc32(data)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"\n", "damaged"),
        (b"\0" * 40 + b"\n", "damaged"),
        (b'{"id": "02"}\n', "damaged"),
        (checked('{"id": "02"}').replace(b"02", b"03"), "damaged"),
        (checked('{"id": "02"'), "is no record with an id"),
        (checked('["02"]'), "is no record with an id"),
        (checked('{"key": "02"}'), "is no record with an id"),
        (checked('{"id": "00"}'), "id: 00 comes twice"),
        (checked('{"id": "99"}'), "id: 99 is not expected"),
    ],
)
def test_any_other_damage_is_refused_with_its_line(path, line, said):
    partial = filled(path, IDS[:2])
    lines = partial.read_bytes().splitlines(keepends=True)
    partial.write_bytes(lines[0] + lines[1] + line + lines[1])
    with pytest.raises(ConfigError) as error:
        filled(path, [])
    assert f"a.partial.jsonl:3{'' if said[:3] != 'id:' else ' '}" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_every_flipped_bit_of_a_line_is_seen(path):
    partial = filled(path, IDS[:2])
    data = partial.read_bytes()
    end = data.find(b"\n")
    for index in range(end):
        partial.write_bytes(data[:index] + bytes([data[index] ^ 4]) + data[index + 1 :])
        with pytest.raises(ConfigError, match=r"jsonl:1"):
            filled(path, [])


@pytest.mark.parametrize(("key", "said"), [("99", "not expected"), (None, "not expected"), ("00", "known already")])
def test_a_record_that_does_not_belong_is_not_written(path, key, said):
    partial = filled(path, IDS[:1])
    before = partial.read_bytes()
    with Records(path, IDS, made_for=MADE_FOR) as records, pytest.raises(ValueError, match=said):
        records.add({"id": key})
    assert partial.read_bytes() == before


def test_expected_ids_come_once(path):
    with pytest.raises(ValueError, match=r"twice, e\.g\. 03"):
        Records(path, [*IDS, "03"])


def test_a_full_disk_leaves_whole_lines(path, monkeypatch):
    partial = filled(path, IDS[:1])
    before, write = partial.read_bytes(), os.write

    def half(file, data):
        if partial.stat().st_size > len(before):
            raise OSError("disk full")
        return write(file, data[:20])

    with Records(path, IDS, made_for=MADE_FOR) as records:
        monkeypatch.setattr(module.os, "write", half)
        with pytest.raises(OSError, match="disk full"):
            records.add(record("01"))
        monkeypatch.undo()
        assert partial.read_bytes() == before
        records.add(record("01"))
        assert records.missing() == IDS[2:]


def test_a_second_writer_is_refused(path):
    with Records(path, IDS), pytest.raises(ConfigError, match="another process is writing it"):
        Records(path, IDS)
    with Records(path, IDS) as records:
        assert records.missing() == IDS


WRITER = """
import os, signal, sys
from pathlib import Path
from alignlab.io.records import Records
with Records(Path(sys.argv[1]), sys.argv[3].split(",")) as records:
    for key in records.missing():
        records.add({"id": key})
        if key == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGKILL)
    records.finish()
"""


def test_a_killed_writer_leaves_what_it_added_and_no_lock(path):
    def write(kill_at):
        command = [sys.executable, "-c", WRITER, str(path), kill_at, ",".join(IDS)]
        return subprocess.run(command, check=False).returncode

    for kill_at in ("03", "04", "11"):
        assert write(kill_at) == -signal.SIGKILL
        with Records(path, IDS) as records:
            assert records.missing() == IDS[int(kill_at) + 1 :]
    assert write("never") == 0
    assert path.read_text() == "".join(f'{{"id": "{key}"}}\n' for key in IDS)


def test_records_made_for_other_settings_are_never_mixed_in(path):
    filled(path, IDS[:2])
    with pytest.raises(ConfigError, match=r"begun under other settings \(judge, threshold differ\)"):
        Records(path, IDS, made_for={**MADE_FOR, "judge": "openai", "threshold": 1})
    with pytest.raises(ConfigError, match=r"2 of its ids are not expected now, 1 expected ones are new"):
        Records(path, [*IDS[2:], "12"], made_for=MADE_FOR)
    assert filled(path, IDS[2:4]).read_bytes().count(b"\n") == 4, "under its own settings it goes on"


@pytest.mark.parametrize("gone", [True, False])
def test_records_without_a_manifest_are_refused(path, gone):
    partial = filled(path, IDS[:2])
    manifest = partial.with_name("a.manifest.json")
    manifest.unlink() if gone else manifest.write_text('{"ids": []}')
    with pytest.raises(ConfigError, match="is gone, so nobody knows" if gone else "is damaged"):
        filled(path, [])


def test_a_finished_file_is_read_back(path):
    whole = finished(path)
    with Records(path, IDS, made_for=MADE_FOR) as records:
        assert (records.finished, records.missing()) == (True, [])
        assert list(records.rows()) == [record(key) for key in IDS]
        records.finish()
    assert path.read_bytes() == whole


def test_a_finished_file_that_was_changed_is_refused(path):
    whole = finished(path)
    for changed in (whole.replace(b"null", b"true", 1), whole[: len(whole) // 2], whole + whole[:100], b""):
        path.write_bytes(changed)
        with pytest.raises(ConfigError, match=r"a\.jsonl(:\d+)?( id)?: "):
            filled(path, [])
    path.unlink()
    assert finished(path) == whole, "a lost file is made anew"


@pytest.mark.parametrize("step", ["write_json", "write_lines", "read"])
def test_a_crash_while_finishing_loses_nothing(path, monkeypatch, step):
    filled(path, IDS)

    def crash(*_):
        raise KeyboardInterrupt

    with Records(path, IDS, made_for=MADE_FOR) as records:
        monkeypatch.setattr(*((Records, "_read_final") if step == "read" else (module, step)), crash)
        with pytest.raises(KeyboardInterrupt):
            records.finish()
        monkeypatch.undo()
    with Records(path, IDS, made_for=MADE_FOR) as records:
        assert records.missing() == []
        records.finish()
    assert [json.loads(line)["id"] for line in path.read_text(encoding="utf-8").split("\n")[:-1]] == IDS


def test_a_crash_between_the_last_two_steps_leaves_no_second_copy(path):
    partial = filled(path, IDS)
    data = partial.read_bytes()
    finished(path, [])
    partial.write_bytes(data)
    with Records(path, IDS, made_for=MADE_FOR) as records:
        assert records.finished
    assert not partial.exists()
