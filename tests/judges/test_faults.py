"""A judge server that fails in every way that servers fail: nothing lost, nothing doubled, nothing mis-scored."""

import pytest

from alignlab.errors import ConfigError
from alignlab.io.client import NoAnswer
from alignlab.judges.wording import build_prompt
from support.judging import items_of, settings, truth
from support.servers import HARMLESS, KEY, PERMANENT, SLOW, STOPPING, TRANSIENT, FaultServer

ITEMS = items_of(40)
SLOW_SHARE = 0.12


@pytest.fixture(scope="module")
def faultless(tmp_path_factory):
    """verdicts.jsonl by a server without faults."""
    from alignlab.io.records import Records
    from alignlab.judges import load_judge

    path = tmp_path_factory.mktemp("faultless") / "verdicts.jsonl"
    with FaultServer() as server, Records(path, [item.id for item in ITEMS]) as records:
        judge = load_judge(settings(base_url=server.url), cache=None)
        judge.verdicts(ITEMS, lambda verdict: records.add(verdict.row()))
        records.finish()
    return path.read_bytes()


def patience(fault):
    """Short where the fault is a wait; else long, for a machine with much to do."""
    return {"timeout_s": 0.3, "deadline_s": 10.0} if fault in SLOW else {"timeout_s": 10.0, "deadline_s": 20.0}


def test_the_catalogue_is_whole():
    assert (len(TRANSIENT), len(HARMLESS), len(PERMANENT), len(STOPPING)) == (37, 5, 10, 6)


@pytest.mark.parametrize("workers", [1, 32])
@pytest.mark.parametrize("fault", [*TRANSIENT, *HARMLESS])
def test_transient_faults_leave_no_trace(judge_into, faultless, fault, workers):
    with FaultServer(fault, share=SLOW_SHARE if fault in SLOW else 0.15) as server:
        judged = judge_into(settings(base_url=server.url, workers=workers, **patience(fault)), ITEMS)
        met = [prompt for prompt in server.calls if server.meets(prompt)]
    assert len(met) > 1, "the fault did happen"
    if fault != "bare_word":  # which gives no reason
        assert judged.data == faultless
    assert [row["corrected"] for row in judged.rows] == [truth(item) for item in ITEMS]
    if fault in SLOW:  # on a busy machine a good answer may come too late as well, and is asked again
        assert all(server.calls[prompt] >= 2 for prompt in met)
        return
    assert server.most_flying <= workers
    assert all(server.calls[prompt] == (2 if fault in TRANSIENT else 1) for prompt in met), "asked again, once"
    assert all(server.calls[prompt] == 1 for prompt in server.calls if prompt not in met)


def test_a_fault_that_is_not_asked_again_would_show(judge_into, faultless):
    """The control: the same fault on every call is not hidden."""
    with FaultServer("null_content", always=True) as server:
        assert judge_into(settings(base_url=server.url), ITEMS).data != faultless


@pytest.mark.parametrize("workers", [1, 32])
@pytest.mark.parametrize("fault", PERMANENT)
def test_what_stays_unanswered_is_unscored_by_name(judge_into, fault, workers):
    with FaultServer(fault, always=True) as server:
        judged = judge_into(settings(base_url=server.url, workers=workers), ITEMS)
        met = {item.id for item in ITEMS if server.meets(build_prompt(item, "direct"))}
        assert max(server.calls.values()) == (2 if fault in TRANSIENT else 1)
    ids = [row["id"] for row in judged.rows if row["corrected"] is None]
    assert 1 < len(ids) < len(ITEMS)
    assert {row["reason"] for row in judged.rows if row["corrected"] is None} == {PERMANENT[fault]}
    assert judged.report["unscored"] == {PERMANENT[fault]: len(ids)}
    assert set(ids) == met
    scored = [
        (row["corrected"], truth(item)) for row, item in zip(judged.rows, ITEMS, strict=True) if row["id"] not in ids
    ]
    assert all(got is wanted for got, wanted in scored)


@pytest.mark.parametrize("workers", [1, 32])
@pytest.mark.parametrize("fault", STOPPING)
def test_a_wrong_key_or_no_money_stops_the_run_at_once_and_it_goes_on(
    judge_into, monkeypatch, fault, workers, faultless
):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with FaultServer(fault, share=0.3, always=True) as server:
        config = settings(base_url=server.url, workers=workers, api_key_env="JUDGE_KEY")
        with pytest.raises(ConfigError) as error:
            judge_into(config, ITEMS)
        met = sum(count for prompt, count in server.calls.items() if server.meets(prompt))
        assert met <= workers, "no call is made after the first such answer, but for those in flight"
        assert "base_url=" in str(error.value) if fault == "404" else "judge.api_key_env=JUDGE_KEY" in str(error.value)
        assert "\n" not in str(error.value)
        assert KEY not in str(error.value)
        server.fault = None
        assert judge_into(config, ITEMS).data == faultless


def test_a_server_that_is_down_stops_the_run_and_it_goes_on(judge_into, faultless):
    with FaultServer("503", share=1.0, always=True) as server:
        config = settings(base_url=server.url, timeout_s=0.1, deadline_s=0.2)
        with pytest.raises(NoAnswer, match=r"within judge\.deadline_s=0\.2: 503 .* rerun the same command"):
            judge_into(config, ITEMS)
        server.fault = None
        assert judge_into(settings(base_url=server.url), ITEMS).data == faultless


def test_a_text_without_an_answer_does_not_keep_the_others_waiting(judge_into, tmp_path):
    with FaultServer("500", always=True) as server:
        config = {"base_url": server.url, "timeout_s": 1.5, "deadline_s": 1.5, "backoff_s": 0.3}
        with pytest.raises(NoAnswer, match=r"\d calls got no good answer"):
            judge_into(settings(**config), ITEMS)
        lines = (tmp_path / "run" / "records" / "verdicts.partial.jsonl").read_text().splitlines()
        known = {line.split('"')[3] for line in lines}
        met = {item.id for item in ITEMS if server.meets(build_prompt(item, "direct"))}
        assert len(known) >= len(ITEMS) - len(met) - 3, "on a busy machine a few good answers come too late"
        before = server.calls.copy()
        judged = judge_into(settings(**config, on_no_answer="unscored"), ITEMS)
        again = server.calls - before
    assert again
    assert not [item.id for item in ITEMS if item.id in known and again[build_prompt(item, "direct")]]
    unknown = {row["id"]: row["reason"] for row in judged.rows if row["corrected"] is None}
    assert set(unknown.values()) == {"no_answer"}
    assert len(set(unknown) - met) <= 1


def test_nobody_listens(judge_into):
    config = settings(timeout_s=0.1, deadline_s=0.1)
    with pytest.raises(NoAnswer, match="ConnectError"):
        judge_into(config, ITEMS)


@pytest.mark.parametrize("fault", ["redirect", "moved"])
def test_a_redirect_is_not_followed(judge_into, monkeypatch, fault):
    """Else the key and the texts would go to whatever place the answer names."""
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with FaultServer() as other, FaultServer(fault) as server:
        server.elsewhere = f"{other.url}/chat/completions"
        judge_into(settings(base_url=server.url, api_key_env="JUDGE_KEY"), ITEMS)
        assert other.calls.total() == 0
        assert server.headers[0][1]["Authorization"] == f"Bearer {KEY}", "the control: it does go where it should"


def test_one_worker_makes_one_call_at_a_time(judge_into):
    with FaultServer(pause=0.002) as server:
        judge_into(settings(base_url=server.url, workers=1), ITEMS[:8])
    assert server.most_flying == 1
