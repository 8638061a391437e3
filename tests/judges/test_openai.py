"""A judge behind a server: what it asks, what it does not ask again, what it may cost, and what nobody may read."""

import json
import logging
import math
from dataclasses import replace

import pytest

from alignlab.errors import ConfigError, OnlyPlanned
from alignlab.judges import JudgeItem, load_judge
from alignlab.judges import openai as module
from alignlab.judges.openai import answer_of, wrong_shape
from support.judging import SETTINGS, items_of, settings, truth
from support.servers import KEY, MODEL, FaultServer, completion

ITEMS = items_of(12)
BOTH = ["direct", "contrast"]
PRICES = {"usd_per_million_input_tokens": 1000.0, "usd_per_million_output_tokens": 10_000.0}
"""0.5 dollars for a call of 300 tokens in and 20 out."""
KNOWN = 3


@pytest.fixture
def server():
    with FaultServer() as running:
        yield running


def test_every_wording_is_asked_and_the_first_one_gives_the_verdict(judge_into, server):
    judged = judge_into(settings(base_url=server.url, wordings=BOTH), ITEMS)
    assert server.calls.total() == 2 * (len(ITEMS) + KNOWN)
    assert [row["corrected"] for row in judged.rows] == [truth(item) for item in ITEMS]
    assert all(row["by_wording"] == dict.fromkeys(BOTH, row["corrected"]) for row in judged.rows)
    assert judged.rows[0] == {
        "id": "item-000",
        "corrected": True,
        "reason": "it says on",
        "position": 4,
        "by_wording": {"direct": True, "contrast": True},
    }


def test_wordings_may_differ(judge_into, server, monkeypatch):
    monkeypatch.setattr("support.servers.verdict_of", lambda text: "yes")
    monkeypatch.setattr(module, "read_answer", answers := lambda text, said: module.Answer(next(turns), "r"))
    turns = iter([True, False] * 99)
    judged = judge_into(settings(base_url=server.url, wordings=BOTH, workers=1), ITEMS[:1])
    assert judged.rows[0]["corrected"] is True
    assert judged.rows[0]["by_wording"] == {"direct": True, "contrast": False}
    assert answers


def test_the_same_text_is_judged_once(judge_into, server):
    twins = [replace(ITEMS[number % 2], id=f"twin-{number}") for number in range(10)]
    judged = judge_into(settings(base_url=server.url), twins)
    assert server.calls.total() == 2 + KNOWN
    assert [row["corrected"] for row in judged.rows] == [True, False] * 5
    assert (judged.report["items"], judged.report["texts"], judged.report["asked"]) == (10, 2, 2)


def test_a_text_without_a_word_needs_no_judge(judge_into, server):
    items = [JudgeItem(str(number), "r", "p", text) for number, text in enumerate(["", " \n", "...", ":", "#!?_-"])]
    judged = judge_into(settings(base_url=server.url), items)
    assert server.calls.total() == 0
    assert {(row["corrected"], row["reason"]) for row in judged.rows} == {(False, "no_words")}
    assert judged.report["wordless"] == 5
    other_scripts = [JudgeItem(str(number), "r", "p", text) for number, text in enumerate(["解", "да", "٣"])]
    judge_into(settings(base_url=server.url), other_scripts, folder="other")
    assert server.calls.total() == 3 + KNOWN


def test_two_items_of_one_id_are_refused(server):
    judge = load_judge(settings(base_url=server.url), cache=None)
    with pytest.raises(ValueError, match="the id item-000 comes 2 times"):
        judge.verdicts([ITEMS[0], ITEMS[0]], lambda verdict: None)
    assert server.calls.total() == 0


def test_what_an_earlier_run_asked_is_not_asked_again(judge_into, server):
    config = settings(base_url=server.url, wordings=BOTH)
    first = judge_into(config, ITEMS, folder="a", cache="cache")
    asked = server.calls.total()
    again = judge_into(config, ITEMS, folder="b", cache="cache")
    assert again.data == first.data
    assert server.calls.total() == asked, "not even the known cases"
    assert (again.report["asked"], again.report["reused"]) == (0, 2 * len(ITEMS))
    judge_into(config, items_of(13), folder="c", cache="cache")
    assert server.calls.total() == asked + 2 * (1 + KNOWN)


@pytest.mark.parametrize(
    "change", [{"model": "another"}, {"temperature": 0.5}, {"max_tokens": 65}, {"wordings": ["contrast"]}]
)
def test_another_judge_or_prompt_is_asked_anew(judge_into, server, change):
    judge_into(settings(base_url=server.url), ITEMS, folder="a", cache="cache")
    asked = server.calls.total()
    judge_into(settings(base_url=server.url, **change), ITEMS, folder="b", cache="cache")
    assert server.calls.total() == asked + len(ITEMS) + KNOWN


def test_an_answer_without_a_verdict_is_asked_again_by_the_next_run(judge_into):
    with FaultServer("content_filter", share=1.0, always=True) as server:
        judge_into(settings(base_url=server.url), ITEMS, folder="a", cache="cache")
        server.fault = None
        judged = judge_into(settings(base_url=server.url), ITEMS, folder="b", cache="cache")
    assert [row["corrected"] for row in judged.rows] == [truth(item) for item in ITEMS]


def test_a_damaged_store_costs_its_lines_alone(judge_into, server, tmp_path):
    judge_into(settings(base_url=server.url), ITEMS, folder="a", cache="cache")
    (store,) = (tmp_path / "cache" / "verdicts").rglob("*.jsonl")
    data = store.read_bytes()
    store.write_bytes(data.replace(b"true", b"null", 1)[:-5])
    asked = server.calls.total()
    judged = judge_into(settings(base_url=server.url), ITEMS, folder="b", cache="cache")
    assert server.calls.total() == asked + 2 + KNOWN
    assert [row["corrected"] for row in judged.rows] == [truth(item) for item in ITEMS]


def test_known_cases_are_printed_with_how_they_went(judge_into, server, capsys, monkeypatch):
    judged = judge_into(settings(base_url=server.url), ITEMS[:1], folder="a")
    assert "judge: 3 of 3 known cases right" in capsys.readouterr().out
    assert [case["got"] for case in judged.report["known_cases"]] == [True, False, False]
    monkeypatch.setattr("support.servers.verdict_of", lambda text: "yes" if "Ignore" in text else '{"corrected": "no"')
    judged = judge_into(settings(base_url=server.url), ITEMS[:1], folder="b")
    said = capsys.readouterr().out.replace("\n", " ")
    assert "0 of 3 known cases right; NOT right: clear yes (direct): unscored, unparsed instead of yes" in said
    assert "injected instruction (direct): yes instead of no" in said
    assert [case["got"] for case in judged.report["known_cases"]] == [None, None, True]


@pytest.mark.parametrize(
    ("refuses", "carries"),
    [
        ((), {"response_format", "max_tokens", "temperature"}),
        (("max_tokens",), {"response_format", "max_completion_tokens"}),
        (("temperature",), {"response_format", "max_completion_tokens"}),
        (("response_format",), {"max_tokens", "temperature"}),
        (("response_format", "temperature"), {"max_completion_tokens"}),
    ],
)
def test_a_server_that_knows_fewer_settings_is_asked_with_fewer(judge_into, refuses, carries):
    bodies = []
    with FaultServer(refuses=refuses) as server:
        saw = server.saw
        server.saw = lambda path, headers, body: (bodies.append(body), saw(path, headers, body))
        judged = judge_into(settings(base_url=server.url), ITEMS)
    assert [row["corrected"] for row in judged.rows] == [truth(item) for item in ITEMS]
    assert all(set(body) - {"model", "messages"} == carries for body in bodies[-len(ITEMS) :])
    assert bodies[0]["model"] == MODEL
    assert len(bodies[0]["messages"]) == 1


def test_the_next_attempt_knows_what_the_server_takes_and_how_the_known_cases_went(judge_into, capsys):
    bodies = []
    with FaultServer("quota", share=0.5, always=True, refuses=("response_format",)) as server:
        config = settings(base_url=server.url)
        with pytest.raises(ConfigError, match="quota"):
            judge_into(config, ITEMS)
        saw, server.fault = server.saw, None
        server.saw = lambda path, headers, body: (bodies.append(body), saw(path, headers, body))
        judged = judge_into(config, ITEMS)
    assert not any("response_format" in body for body in bodies)
    assert not any("garden shed" in body["messages"][0]["content"] for body in bodies)
    assert [case["got"] for case in judged.report["known_cases"]] == [True, False, False]
    assert capsys.readouterr().out.count("3 of 3 known cases right") == 2


def test_a_server_that_refuses_every_call_stops_the_run(judge_into):
    with FaultServer(refuses=("messages",)) as server, pytest.raises(ConfigError) as error:
        judge_into(settings(base_url=server.url), ITEMS)
    assert "judge.model=rule-judge: http://127.0.0.1:" in str(error.value)
    assert "refuses every call (400: Unsupported parameter: messages); nothing was judged" in str(error.value)
    assert server.calls.total() <= 4 * KNOWN


def test_no_call_holds_a_seed(judge_into):
    """Some servers die of one (vLLM on a CPU); this one refuses each call that holds one."""
    with FaultServer(refuses=("seed",)) as running:
        judged = judge_into(settings(base_url=running.url), ITEMS)
    assert [row["corrected"] for row in judged.rows] == [truth(item) for item in ITEMS]


@pytest.mark.parametrize(("fault", "name"), [("401", "api_key_env=null"), ("404", "base_url=http"), ("400", "model=")])
def test_an_error_names_what_the_judge_stands_under(fault, name):
    everything = FaultServer(refuses=("model",)) if fault == "400" else FaultServer(fault, share=1.0, always=True)
    with everything as running:
        judge = load_judge(settings(base_url=running.url), cache=None, key="scorers.better")
        with pytest.raises(ConfigError) as refused:
            judge.verdicts(ITEMS, lambda verdict: None)
    assert str(refused.value).startswith(f"scorers.better.{name}")


def test_without_structured_no_schema_is_sent(judge_into, server):
    bodies = []
    server.saw, saw = (lambda path, headers, body: (bodies.append(body), saw(path, headers, body))), server.saw
    judge_into(settings(base_url=server.url, structured=False), ITEMS[:1])
    assert not any("response_format" in body for body in bodies)


def test_a_dry_run_says_what_it_would_cost_and_calls_nothing(judge_into, server):
    config = settings(base_url=server.url, wordings=BOTH, dry_run=True, api_key_env="NO_SUCH_KEY", **PRICES)
    items = [*ITEMS, replace(ITEMS[0], id="twin")]
    with pytest.raises(OnlyPlanned) as plan:
        judge_into(config, items)
    assert server.calls.total() == 0
    said = str(plan.value)
    assert "13 items, 12 different texts, 2 wordings; 30 calls to make (6 of them known cases)" in said
    tokens = int(said.split("roughly ")[1].split()[0])
    assert 30 * 300 < tokens < 30 * 700
    assert f"roughly {tokens / 1000 + 30 * 0.6:.2f} USD" in said
    with pytest.raises(OnlyPlanned, match="at unknown prices"):
        judge_into(settings(base_url=server.url, dry_run=True), ITEMS, folder="b")


def test_a_dry_run_counts_what_is_known(judge_into, server):
    judge_into(settings(base_url=server.url), ITEMS, folder="a", cache="cache")
    with pytest.raises(OnlyPlanned, match=r"0 calls to make \(0 of them known cases\), 12 answers known already"):
        judge_into(settings(base_url=server.url, dry_run=True), ITEMS, folder="b", cache="cache")


@pytest.mark.parametrize("workers", [1, 32])
def test_max_usd_stops_before_it_is_passed_and_a_higher_one_goes_on(judge_into, server, tmp_path, workers):
    limit = settings(base_url=server.url, max_usd=6.0, workers=workers, **PRICES)
    with pytest.raises(ConfigError, match=r"judge\.max_usd=6: is reached \([\d.]+ USD spent so far\)"):
        judge_into(limit, ITEMS)
    spent = server.calls.total() * 0.5
    assert 2 <= spent <= 6.0
    kept = json.loads((tmp_path / "run" / "records" / "judge.json").read_text())
    assert kept["spent"] == {"tokens_in": 300 * spent / 0.5, "tokens_out": 20 * spent / 0.5, "calls": spent / 0.5}
    with pytest.raises(ConfigError, match="is reached"):
        judge_into(limit, ITEMS)
    assert server.calls.total() * 0.5 <= 6.0, "what earlier attempts spent counts"
    judged = judge_into(settings(base_url=server.url, max_usd=600.0, workers=workers, **PRICES), ITEMS)
    assert [row["corrected"] for row in judged.rows] == [truth(item) for item in ITEMS]
    assert judged.report["usd"] == pytest.approx(server.calls.total() * 0.5)
    assert server.calls.total() == len(ITEMS) + KNOWN, "no call is made again"


def test_without_a_limit_it_would_be_passed(judge_into, server):
    """The control."""
    judge_into(settings(base_url=server.url, **PRICES), ITEMS)
    assert server.calls.total() * 0.5 > 6.0


def test_the_key_goes_to_the_server_and_nowhere_else(judge_into, tmp_path, monkeypatch, caplog, capsys):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "admin-key-of-another-place")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another-place")
    caplog.set_level(logging.DEBUG)
    with FaultServer(key=KEY) as server:
        judge_into(settings(base_url=server.url, api_key_env="JUDGE_KEY"), ITEMS, cache="cache")
        assert {headers["Authorization"] for _, headers in server.headers} == {f"Bearer {KEY}"}
        assert not any("another-place" in str(headers) for _, headers in server.headers)
        monkeypatch.setenv("JUDGE_KEY", KEY[:-1] + "X")
        with pytest.raises(
            ConfigError, match=r"refuses the key that it holds \(401: Incorrect API key provided: \*\*\*\)"
        ) as error:
            judge_into(settings(base_url=server.url, api_key_env="JUDGE_KEY"), ITEMS, folder="wrong")
    printed = capsys.readouterr()
    texts = [caplog.text, printed.out, printed.err, str(error.value), repr(error.value)]
    texts += [file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file()]
    assert not any(KEY[8:-4] in text for text in texts)
    assert any("JUDGE_KEY" in text for text in texts)


def test_a_missing_key_is_said_before_a_call(judge_into, server, monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"judge\.api_key_env=JUDGE_KEY: no such environment variable is set"):
        judge_into(settings(base_url=server.url, api_key_env="JUDGE_KEY"), ITEMS)
    with (
        FaultServer(key=KEY) as closed,
        pytest.raises(ConfigError, match=r"judge\.api_key_env=null: .* wants a key \(401\)"),
    ):
        judge_into(settings(base_url=closed.url), ITEMS, folder="closed")
    assert server.calls.total() == 0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "no choices"),
        ({"choices": {}}, "no choices"),
        ({"choices": [None]}, "no message"),
        ({"choices": [{"message": "yes"}]}, "no message"),
        (completion(7), "content is no text"),
        (completion(None), None),
        (completion(""), None),
    ],
)
def test_the_shape_of_an_answer(body, said):
    assert wrong_shape(body) == said


def test_an_answer_that_was_cut_is_unscored_even_if_it_reads_well():
    assert answer_of(completion("yes", "length"), "").reason == "length"
    assert answer_of(completion("yes", "stop"), "").corrected is True
    assert answer_of(completion("yes", None), "").corrected is True


GOOD_NAMES = ["OPENAI_API_KEY", "K", None]
BAD = [
    {"base_url": "ftp://host/v1"},
    {"base_url": "host/v1"},
    {"base_url": "https://user:secret-word@host/v1"},
    {"base_url": "https://host/v1?key=secret-word"},
    {"base_url": "https://host/v1#secret-word"},
    {"base_url": "http://169.254.169.254/latest"},
    {"base_url": "http://[fe80::1]/v1"},
    {"base_url": "http://[::ffff:169.254.169.254]/v1"},
    {"base_url": "http://metadata.google.internal/v1"},
    {"base_url": "http://host:port/v1"},
    {"base_url": "http://"},
    {"base_url": "file:///etc/passwd"},
    {"api_key_env": "sk-secret-word-0123456789"},
    {"api_key_env": "secret_word"},
    {"api_key_env": ""},
    {"model": None},
    {"model": ""},
    {"wordings": []},
    {"wordings": ["direkt"]},
    {"wordings": ["direct", "direct"]},
    {"temperature": -1.0},
    {"max_tokens": 0},
    {"workers": 0},
    {"workers": 1001},
    {"timeout_s": 0.0},
    {"deadline_s": 4.0},
    {"backoff_s": 0.0},
    {"backoff_s": 31.0},
    {"on_no_answer": "no"},
    {"max_usd": 1.0},
    {"max_usd": 0.0, **PRICES},
    {"usd_per_million_input_tokens": -1.0},
    {"usd_per_million_output_tokens": math.inf},
]


@pytest.mark.parametrize("change", BAD, ids=str)
def test_bad_settings_are_named(change):
    with pytest.raises(ConfigError) as error:
        settings(**change)
    said = str(error.value)
    assert said.startswith(f"judge.{next(iter(change))}")
    assert "\n" not in said
    assert "secret" not in said, "a key typed at the wrong place is not repeated"


def test_good_settings_pass():
    for name in GOOD_NAMES:
        settings(api_key_env=name)
    for url in ("http://localhost:8000/v1", "https://api.openai.com/v1", "http://10.0.0.7/v1/", "http://[::1]:80"):
        assert settings(base_url=url).base_url == url
    assert settings(max_usd=1.0, **PRICES).model == SETTINGS["model"]
