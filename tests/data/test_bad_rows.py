"""Rows that cannot be used: each fault in both formats, through the real command line, before any model is loaded."""

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignlab import cli
from alignlab.checks import preflight
from alignlab.config.plan import plan_of
from alignlab.data.report import FAULTS, MOST_LINES, SPELLINGS
from alignlab.data.sources import load
from alignlab.errors import EXIT_BAD_INPUT, ConfigError

TEXTS = ("prompt", "response_0", "response_1")


def good(number):
    return {
        "prompt": f"request number {number}",
        "response_0": f"answer {number}",
        "response_1": f"another answer {number}",
        "is_response_0_safe": True,
        "is_response_1_safe": True,
        "better_response_id": number % 2,
        "safer_response_id": 0,
    }


FIRST = good(0)
CONTRADICTORY = {"is_response_0_safe": False, "is_response_1_safe": True, "safer_response_id": 0}
ROWS = {
    **{f"null {column}": ({column: None}, "null", column, "is null") for column in (*TEXTS, "safer_response_id")},
    **{f"empty {column}": ({column: ""}, "empty", column, "is empty") for column in TEXTS},
    **{f"blank {column}": ({column: " \n\t"}, "empty", column, "is empty") for column in TEXTS},
    "identical": ({"response_1": "answer 2"}, "identical", "response_1", "is the same as response_0"),
    "identical but for blanks": ({"response_1": " answer 2\n"}, "identical", "response_1", "is the same as response_0"),
    "label 2": ({"better_response_id": 2}, "bad_value", "better_response_id", "must be 0 or 1, is 2"),
    "label -1": ({"safer_response_id": -1}, "bad_value", "safer_response_id", "must be 0 or 1, is -1"),
    "contradictory": (CONTRADICTORY, "contradictory", "safer_response_id", "response_0 is marked unsafe"),
    "too many words": ({"prompt": "word " * 600}, "too_long", "prompt", "has 600 words"),
    "too many characters": ({"prompt": "x" * 9000}, "too_long", "prompt", "too long for trainer.max_length=512"),
    "repeated": (FIRST, "duplicate", "prompt", "is repeated with its responses from bad.FORM:1"),
    "repeated, other safety marks": (
        {**FIRST, "is_response_0_safe": None},
        "duplicate",
        "prompt",
        "is repeated with its responses from bad.FORM:1",
    ),
    "repeated, sides and labels exchanged": (
        {
            **FIRST,
            "response_0": "another answer 0",
            "response_1": "answer 0",
            "better_response_id": 1,
            "safer_response_id": 1,
        },
        "duplicate",
        "prompt",
        "is repeated",
    ),
    "opposite labels": (
        {**FIRST, "better_response_id": 1},
        "contradictory",
        "better_response_id",
        "ranks the two responses of bad.FORM:1 the other way round",
    ),
    "sides exchanged, labels not": (
        {**FIRST, "response_0": "another answer 0", "response_1": "answer 0"},
        "contradictory",
        "better_response_id",
        "the other way round",
    ),
}
"""Faults that both formats can express: (what the third row has, kind, field, reason)."""

COLUMNS = {
    "texts are numbers": ("response_0", [1, 2, 3, 4, 5, 6], "wrong_type", "must be text, is a number"),
    "texts are lists": ("prompt", [["a"], ["b"], ["c"], ["d"], ["e"], ["f"]], "wrong_type", "must be text, is a list"),
    "texts are objects": ("prompt", [{"a": 1}] * 6, "wrong_type", "must be text, is an object"),
    "labels are texts": ("better_response_id", list("010101"), "wrong_type", "must be 0 or 1, is text"),
    "labels are true or false": (
        "safer_response_id",
        [True, False] * 3,
        "wrong_type",
        "must be 0 or 1, is true or false",
    ),
    "labels are halves": ("safer_response_id", [0.5] * 6, "bad_value", "must be 0 or 1, is 0.5"),
    "marks are texts": ("is_response_0_safe", ["yes", "no"] * 3, "wrong_type", "must be true or false, is text"),
    "marks are counts": ("is_response_1_safe", [2, 3] * 3, "wrong_type", "must be true or false, is a number"),
    "no text at all": ("response_1", [None] * 6, "null", "is null"),
}
"""Faults of a whole column: (column, its values, kind, reason)."""

LINES = {
    "torn": (b'{"prompt": "half a li', "not_json", "", "not JSON, column "),
    "two objects": (b"{} {}", "not_json", "", "not JSON, column "),
    "digits without end": (b'{"a": ' + b"1" * 5000 + b"}", "not_json", "", "cannot be read as JSON"),
    "brackets without end": (b"[" * 100_000, "not_json", "", "cannot be read as JSON"),
    "not UTF-8": (b'{"prompt": "caf\xe9"}', "not_utf8", "", "byte 15 is not UTF-8"),
    "a list": (b"[1, 2]", "not_an_object", "", "must be a JSON object, is a list"),
    "a text": (b'"hello"', "not_an_object", "", "must be a JSON object, is a str"),
    "a key twice": (b'{"prompt": "a", "prompt": "b"}', "bad_value", "prompt", "stands twice in one object"),
    "half a surrogate pair": (
        json.dumps({**good(2), "response_0": "\ud83d"}).encode(),
        "not_utf8",
        "response_0",
        "is half a surrogate pair",
    ),
    "a column is missing": (
        json.dumps({name: value for name, value in good(2).items() if name != "response_1"}).encode(),
        "missing_column",
        "response_1",
        "is missing; did you mean response_0?",
    ),
    "a number for a text": (
        json.dumps({**good(2), "prompt": 3}).encode(),
        "wrong_type",
        "prompt",
        "must be text, is a n",
    ),
    "a text for a label": (
        json.dumps({**good(2), "safer_response_id": "0"}).encode(),
        "wrong_type",
        "safer_response_id",
        "must be 0 or 1, is text",
    ),
}
"""Faults of a line, which JSON Lines alone can have: (its bytes, kind, field, reason)."""


@pytest.fixture
def refused(run_with):
    """The check that the command line makes of a file: (exit code, lines)."""

    def check(path, **changes):
        try:
            preflight.check(plan_of(run_with("pku_saferlhf", path=path, split=None, **changes)))
        except ConfigError as error:
            return EXIT_BAD_INPUT, str(error).splitlines()
        return 0, []

    return check


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """The whole command on a file, up to the point where a job would start: (exit code, lines)."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    started = []
    monkeypatch.setattr(cli, "_hydra", lambda argv, folders=(): started.append(argv) or 0)

    def run(path, *overrides):
        line = ["algorithm=dpo", "model=scratch", "dataset=pku_saferlhf", "dataset.split=null", f"dataset.path={path}"]
        code = cli.main([*line, *overrides])
        printed = capsys.readouterr()
        assert bool(started) == (code == 0), "a job starts if and only if the data are good"
        assert list((tmp_path / "work").iterdir()) == [], "no run folder is made by the check"
        assert printed.out == ""
        return code, printed.err.splitlines()

    return run


def as_file(folder, form, rows):
    path = folder / f"bad.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_good_rows_start_a_job_and_a_bad_one_none(command, refused, tmp_path, form):
    rows = [good(number) for number in range(6)]
    path = as_file(tmp_path, form, rows)
    assert refused(path) == command(path) == (0, [])


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_the_command_prints_what_the_check_says(command, refused, tmp_path, form):
    rows = [{**good(number), "response_0": "" if number else "x"} for number in range(30)]
    path = as_file(tmp_path, form, rows)
    code, lines = refused(path)
    assert (code, len(lines)) == (2, MOST_LINES + 2)
    assert command(path) == (code, lines)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("fault", ROWS)
def test_a_bad_row(refused, tmp_path, form, fault):
    changes, _, field, reason = ROWS[fault]
    rows = [good(number) for number in range(6)]
    rows[2] |= changes
    code, (line,) = refused(as_file(tmp_path, form, rows))
    assert code == 2
    assert line.startswith(f"bad.{form}:3 {field}: ")
    assert reason.replace("FORM", form) in line


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("fault", COLUMNS)
def test_a_bad_column(refused, tmp_path, form, fault):
    column, values, kind, reason = COLUMNS[fault]
    rows = [{**good(number), column: value} for number, value in enumerate(values)]
    code, lines = refused(as_file(tmp_path, form, rows))
    assert code == 2
    assert [line.partition(f" {column}: ")[0] for line in lines[:6]] == [f"bad.{form}:{row}" for row in range(1, 7)]
    assert all(reason in line for line in lines[:6])
    assert f"6 of 6 rows cannot be used (6 {FAULTS[kind]})" in lines[6]


@pytest.mark.parametrize("fault", LINES)
def test_a_bad_line(refused, tmp_path, fault):
    content, _, field, reason = LINES[fault]
    path = as_file(tmp_path, "jsonl", [good(0), good(1)])
    path.write_bytes(path.read_bytes() + content + b"\n" + json.dumps(good(3)).encode())
    code, (line,) = refused(path)
    assert code == 2
    assert line.startswith(f"bad.jsonl:3{' ' if field else ''}{field}: ")
    assert reason in line


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("column", ["prompt", "response_1", "better_response_id"])
def test_a_column_that_no_row_has(refused, tmp_path, form, column):
    rows = [{name + "s" * (name == column): value for name, value in good(number).items()} for number in range(6)]
    code, (line,) = refused(as_file(tmp_path, form, rows))
    assert code == 2
    assert line.startswith(f"bad.{form}:1 {column}: no such column; did you mean {column}s? choose one of ")
    assert all(name in line for name in rows[0]), "the columns that there are"


def test_parquet_bytes_that_are_not_utf8(refused, tmp_path):
    rows = [good(number) for number in range(6)]
    table = pa.Table.from_pylist(rows)
    texts = pa.array([b"caf\xe9" if number == 2 else b"cafe" for number in range(6)])
    table = table.set_column(0, "prompt", pa.Array.from_buffers(pa.string(), 6, texts.buffers()))
    pq.write_table(table, tmp_path / "bad.parquet")
    code, (line,) = refused(tmp_path / "bad.parquet")
    assert (code, line.split(" (")[0]) == (2, "bad.parquet:3 prompt: byte 3 is not UTF-8")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("bad.jsonl", b"", "holds no rows"),
        ("bad.jsonl", b"\n \n", "holds no rows"),
        ("bad.json", b'[{"prompt": "a"}]', "is one JSON array; one object a line is needed"),
        ("bad.jsonl", '{"prompt": "a"}'.encode("utf-16"), "is written in UTF-16; save it as UTF-8"),
        ("bad.parquet", b"PAR1 and no more", "cannot be read as Parquet"),
        ("bad.jsonl.gz", b"no gzip", "cannot be read as gzip"),
    ],
)
def test_a_file_that_is_bad_as_a_whole(refused, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    for policy in ("error", "drop"):
        code, (line,) = refused(tmp_path / name, on_bad_row=policy)
        assert code == 2
        assert said in line


def test_a_truncated_parquet_file(refused, tmp_path):
    path = as_file(tmp_path, "parquet", [good(number) for number in range(500)])
    path.write_bytes(path.read_bytes()[:-100])
    code, (line,) = refused(path)
    assert code == 2
    assert "bad.parquet: cannot be read as Parquet" in line


def test_the_first_fault_in_the_documented_order_counts(refused, tmp_path):
    rows = [good(0), {**good(1), "prompt": "", "response_0": None, "better_response_id": 7}]
    code, (line,) = refused(as_file(tmp_path, "jsonl", rows))
    assert (code, line.split(" (")[0]) == (2, "bad.jsonl:2 response_0: is null")
    rows[1] |= {"response_0": "x", "better_response_id": 0, **CONTRADICTORY}
    _, (line,) = refused(as_file(tmp_path, "jsonl", rows))
    assert line.startswith("bad.jsonl:2 safer_response_id: is 0, but")


def test_twenty_lines_and_then_totals(refused, tmp_path):
    rows = [{**good(number), "prompt": "" if number % 2 else None} for number in range(50)]
    code, lines = refused(as_file(tmp_path, "jsonl", rows))
    assert code == 2
    assert [line.split(":")[1].split()[0] for line in lines[:MOST_LINES]] == [str(row) for row in range(1, 21)]
    assert lines[MOST_LINES] == "... and 30 more"
    assert "50 of 50 rows cannot be used (25 null, 25 empty text)" in lines[MOST_LINES + 1]
    assert len(lines) == MOST_LINES + 2


def faulty(form, times, tmp_path):
    """1,000 good rows, and each fault that a format can express `times` times among them; with what must be counted."""
    rows, expected = [good(number) for number in range(1000)], {}
    planted = 1000
    for changes, kind, *_ in ROWS.values():
        expected[kind] = expected.get(kind, 0) + times
        for _ in range(times):
            planted += 1
            row = {**good(planted), **changes}
            if "answer 2" in str(changes.get("response_1")):
                row["response_0"] = "answer 2"
            rows.insert(planted * 7919 % (len(rows) - 1) + 1, row)
    if form == "parquet":
        return as_file(tmp_path, form, rows), expected
    lines = [json.dumps(row).encode() for row in rows]
    for content, kind, *_ in LINES.values():
        expected[kind] = expected.get(kind, 0) + times
        for _ in range(times):
            planted += 1
            lines.insert(planted * 104729 % (len(lines) - 1) + 1, content)
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path, expected


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("times", [1, 3])
def test_dropping_counts_exactly(dataset_of, tmp_path, form, times):
    path, expected = faulty(form, times, tmp_path)
    found = load(dataset_of("pku_saferlhf", path=path, on_bad_row="drop"), max_length=512)
    record = found.as_record()
    assert record["bad"] == expected
    assert record["rows"] == 1000 + sum(expected.values())
    assert record["records"] == len(found.rows) == 1000
    assert {row.prompt for row in found.rows} == {good(number)["prompt"] for number in range(1000)}


OTHERWISE_SPELLED = ["answer\u00a02", "\uff41nswer 2", "answer 2\u200d", "an\u00adswer\u20032"]
BUT = "but for its Unicode form, Unicode spaces or invisible characters"


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("spelled", OTHERWISE_SPELLED)
def test_answers_that_differ_only_in_unicode_are_identical(refused, tmp_path, form, spelled):
    rows = [good(number) for number in range(6)]
    rows[2] |= {"response_1": spelled}
    _, (line,) = refused(as_file(tmp_path, form, rows))
    assert line.startswith(f"bad.{form}:3 response_1: is the same as response_0, {BUT}")


def test_answers_that_differ_only_in_their_line_ends_are_identical(refused, tmp_path):
    rows = [{**good(number), "response_0": "one\ntwo", "response_1": "one\r\ntwo"} for number in range(1)]
    _, (line,) = refused(as_file(tmp_path, "jsonl", rows))
    assert line.startswith(f"bad.jsonl:1 response_1: is the same as response_0, {BUT}")


@pytest.mark.parametrize("spelled", ["request\u00a0number 0", "\uff52equest number 0", "request number\u2060 0"])
def test_rows_that_differ_only_in_unicode_are_repeated(refused, tmp_path, spelled):
    rows = [good(0), good(1), {**good(0), "prompt": spelled}]
    _, (line,) = refused(as_file(tmp_path, "jsonl", rows))
    assert line.startswith("bad.jsonl:3 prompt: is repeated with its responses from bad.jsonl:1, but for their Unicode")
    rows[2] |= {"response_0": "answer\u00a00", "better_response_id": 1}
    _, (line,) = refused(as_file(tmp_path, "jsonl", rows))
    assert line.startswith("bad.jsonl:3 better_response_id: ranks the two responses of bad.jsonl:1 the other way round")


def test_prompts_that_differ_only_in_unicode_are_counted_and_said(dataset_of, tmp_path):
    rows = [good(0), good(1), {**good(2), "prompt": "request\u00a0number 0"}, {**good(3), "prompt": "request number 0"}]
    report = load(dataset_of("pku_saferlhf", path=as_file(tmp_path, "jsonl", rows)), max_length=512).report
    assert report.as_record()["notes"] == {SPELLINGS: 1}
    assert [line.partition(": ")[2] for line in report.notices()] == [f"1 {SPELLINGS}"]
    plain = load(dataset_of("pku_saferlhf", path=as_file(tmp_path, "parquet", rows[:2])), max_length=512).report
    assert (plain.as_record()["notes"], plain.notices()) == ({}, [])


@pytest.mark.parametrize("column", TEXTS)
@pytest.mark.parametrize("text", ["\u00a0", "\u3000\u200b", "\ufeff", "\u2028", "\u0000"])
def test_a_text_of_nothing_to_see(refused, tmp_path, column, text):
    rows = [good(0), {**good(1), column: text}]
    _, (line,) = refused(as_file(tmp_path, "jsonl", rows))
    assert line.startswith(f"bad.jsonl:2 {column}: holds nothing but ")


def test_too_many_bad_rows_are_not_dropped(dataset_of, tmp_path):
    rows = [{**good(number), "prompt": "" if number < 11 else "x" + str(number)} for number in range(100)]
    path = as_file(tmp_path, "jsonl", rows)
    with pytest.raises(ConfigError, match=r"11\.0% is more than dataset\.max_bad_share=0\.1"):
        load(dataset_of("pku_saferlhf", path=path, on_bad_row="drop"))
    assert len(load(dataset_of("pku_saferlhf", path=path, on_bad_row="drop", max_bad_share=0.11)).rows) == 89


def test_a_sweep_checks_its_data_once(tmp_path, monkeypatch):
    from alignlab.data import sources

    path = as_file(tmp_path, "jsonl", [good(number) for number in range(20)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_hydra", lambda argv, folders=(): 1)
    monkeypatch.setattr(cli, "_after_sweep", lambda checked, flags, code: len(checked.jobs))
    real, calls = sources.file_rows, []
    monkeypatch.setattr(sources, "file_rows", lambda *given: calls.append(given) or real(*given))
    line = ["-m", "model=scratch", "dataset=pku_saferlhf", f"dataset.path={path}", "w=0.1,0.2,0.3,0.4,0.5,0.6,0.7"]
    assert cli.main(line) == 7
    assert len(calls) == 1


def test_the_check_imports_no_model_library(tmp_path):
    import subprocess

    path = as_file(tmp_path, "parquet", [good(0), {**good(1), "prompt": ""}])
    code = (
        "import sys; from alignlab.cli import main\n"
        f"code = main(['algorithm=dpo', 'model=scratch', 'dataset=pku_saferlhf', 'dataset.path={path}'])\n"
        "print(code, [name for name in ('torch', 'transformers', 'datasets', 'trl') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ended.stdout.strip() == "2 []"
    assert ended.stderr.startswith("bad.parquet:2 prompt: is empty")
