"""An endpoint that fails in every way: nothing is lost, nothing is doubled, nothing becomes a 0."""

import contextlib
import http.server
import json
import threading
import time

import pytest

from alignlab.config.schema import HttpConfig
from alignlab.data.records import Turn
from alignlab.engine.cache.scores import ScoreCache
from alignlab.errors import ConfigError
from alignlab.io.http import http_client
from alignlab.rewards import posting
from alignlab.rewards.endpoint import EndpointReward
from alignlab.rewards.posting import EndpointError, endpoint_of

KEY = "a-secret-that-must-not-show"


class Server(http.server.ThreadingHTTPServer):
    """Scores a response by its length; `faults` are what it does first, one a request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.seen, self.headers = [], [], []
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/score"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Silent."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
            server.headers.append(dict(self.headers))
            fault = server.faults.pop(0) if server.faults else None
        scores = [len(response) for response in asked["responses"]]
        time.sleep(0.0 if fault else 0.02)
        with server.lock:
            server.busy -= 1  # before the answer: the client may ask again before this thread goes on
        if fault is None:
            with server.lock:
                server.seen += list(zip(map(str, asked["prompts"]), asked["responses"], strict=True))
            self.answer(200, {"scores": scores})
        else:
            fault(self, scores)

    def answer(self, status, body, **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def status(code, **headers):
    return lambda handler, _: handler.answer(code, {"error": "no"}, **headers)


def says(body):
    return lambda handler, scores: handler.answer(200, body(scores) if callable(body) else body)


def reset(handler, _):
    handler.close_connection = True
    handler.connection.close()


def torn(handler, scores):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"scores": [')
    reset(handler, scores)


def drip(handler, _):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    trickle(handler, b" ")


def slow_headers(handler, _):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    trickle(handler, b"X-More: x\r\n")


def trickle(handler, part):
    """Write a part every twentieth of a second, for five seconds or until the client has gone."""
    with contextlib.suppress(OSError):
        for _ in range(100):
            time.sleep(0.05)
            handler.wfile.write(part)


def twice(handler, scores):
    """A second, contradicting answer that nobody asked for, on the same connection."""
    handler.answer(200, {"scores": scores})
    with contextlib.suppress(OSError):
        handler.answer(200, {"scores": [99.0] * len(scores)})


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def settings(url, **changed):
    given = {
        "kind": "http",
        "normalise": False,
        "url": url,
        "api_key_env": None,
        "version": None,
        "batch_size": 2,
        "workers": 3,
        "timeout_s": 5.0,
        "deadline_s": 5.0,
        "backoff_s": 0.01,
        "negate": False,
    }
    return HttpConfig(**(given | changed))


def reward(url, tmp_path, **changed):
    cache = ScoreCache(tmp_path / "cache")
    return EndpointReward(settings(url, **changed), cache=cache, encoder=None, name="safer")


PROMPTS = [f"prompt {number}" for number in range(11)]
RESPONSES = ["x" * (number + 1) for number in range(11)]
SCORES = [float(number + 1) for number in range(11)]


def test_every_row_gets_its_own_score(server, tmp_path):
    assert reward(server.url, tmp_path).score(PROMPTS, RESPONSES).tolist() == SCORES
    assert sorted(server.seen) == sorted(zip(PROMPTS, RESPONSES, strict=True))
    assert reward(server.url, tmp_path, negate=True).score(PROMPTS, RESPONSES).tolist() == [-one for one in SCORES]


def test_a_conversation_is_sent_as_its_turns(server, tmp_path):
    prompt = (Turn("user", "one"), Turn("assistant", "two"), Turn("user", "three"))
    assert reward(server.url, tmp_path).score([prompt], ["xx"]).tolist() == [2]
    assert server.seen[0][0] == str([{"role": turn.role, "content": turn.content} for turn in prompt])


TRANSIENT = {
    "429": status(429),
    "429 with seconds": status(429, Retry_After="0.01"),
    "429 with a date": status(429, Retry_After="Thu, 01 Jan 2026 00:00:00 GMT"),
    "500": status(500),
    "503": status(503),
    "reset": reset,
    "torn": torn,
}


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=list(TRANSIENT))
def test_what_passes_is_asked_again(server, tmp_path, fault):
    server.faults = [fault, fault, fault]
    assert reward(server.url, tmp_path).score(PROMPTS, RESPONSES).tolist() == SCORES
    assert sorted(server.seen) == sorted(zip(PROMPTS, RESPONSES, strict=True)), "each row was scored once"


PERMANENT = {
    "400": (status(400), "status 400"),
    "401": (status(401), "status 401"),
    "a redirect": (status(302, Location="http://127.0.0.1:1/"), "status 302, redirects to 127.0.0.1 are not followed"),
    "not JSON": (says(b"<html>"), "is not JSON"),
    "no object": (says([1, 2]), 'must be {"scores": [...]}'),
    "no scores": (says({"score": [1, 2]}), 'must be {"scores": [...]}'),
    "too few": (says(lambda scores: {"scores": scores[1:]}), "1 scores for 2 responses, rows 0..1"),
    "too many": (says(lambda scores: {"scores": [*scores, 0]}), "3 scores for 2 responses, rows 0..1"),
    "null": (says(lambda scores: {"scores": [scores[0], None]}), "the score of row 1 is NoneType"),
    "text": (says(lambda scores: {"scores": [scores[0], "0.5"]}), "the score of row 1 is str"),
    "a truth": (says(lambda scores: {"scores": [True, scores[1]]}), "the score of row 0 is bool"),
    "NaN": (says(b'{"scores": [1.0, NaN]}'), "the score of row 1 is nan"),
    "infinity": (says(b'{"scores": [-Infinity, 1]}'), "the score of row 0 is -inf"),
    "beyond float32": (says(b'{"scores": [1e39, 1]}'), "the score of row 0 is 1e+39"),
    "beyond any float": (says(b'{"scores": [1' + b"0" * 400 + b", 1]}"), "the score of row 0 is 1000"),
}


@pytest.mark.parametrize(("fault", "said"), PERMANENT.values(), ids=list(PERMANENT))
def test_what_does_not_pass_is_an_error_and_never_a_number(server, tmp_path, fault, said):
    server.faults = [fault]
    with pytest.raises(EndpointError) as refused:
        reward(server.url, tmp_path, workers=1).score(PROMPTS, RESPONSES)
    assert said in str(refused.value)
    assert "prompt 0" not in str(refused.value)


def test_the_row_that_is_named_counts_from_the_first_one_asked(server, tmp_path):
    server.faults = [says(lambda scores: {"scores": scores}), says(lambda scores: {"scores": [scores[0], None]})]
    with pytest.raises(EndpointError, match="row 3 is NoneType"):
        reward(server.url, tmp_path, workers=1).score(PROMPTS, RESPONSES)


def test_an_answer_without_end_is_not_read(server, tmp_path, monkeypatch):
    monkeypatch.setattr(posting, "MOST_BYTES", 1000)
    server.faults = [says(b"[" + b" " * 2000 + b"]")] * 50
    with pytest.raises(ConfigError, match=r"reward\.url=.*answers with more than"):
        reward(server.url, tmp_path).score(PROMPTS, RESPONSES)


def test_a_server_that_stays_broken_is_given_up(server, tmp_path):
    server.faults = [status(503)] * 50
    with pytest.raises(EndpointError, match=r"rows 0\.\.1: .*within reward\.deadline_s=0\.3: status 503 \(\d+ times\)"):
        reward(server.url, tmp_path, workers=1, timeout_s=0.1, deadline_s=0.3).score(PROMPTS, RESPONSES)
    assert len(server.headers) > 2


@pytest.mark.parametrize(
    "fault",
    [drip, slow_headers, status(429, Retry_After="100"), status(429, Retry_After="1e9")],
    ids=["drips", "slow headers", "asks to wait too long", "asks to wait for ever"],
)
def test_the_deadline_is_for_the_whole_request(server, tmp_path, fault):
    server.faults = [fault] * 50
    start = time.monotonic()
    with pytest.raises(EndpointError, match=r"within reward\.deadline_s=0\.3"):
        reward(server.url, tmp_path, timeout_s=0.2, deadline_s=0.3, workers=1).score(PROMPTS[:2], RESPONSES[:2])
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("wait", ["nan", "-inf", "inf", "Fri, 31 Dec 99999999 23:59:59 GMT", "-5"])
def test_a_wait_that_is_no_time_is_no_hammering(server, tmp_path, wait):
    server.faults = [status(429, Retry_After=wait)] * 10_000
    with pytest.raises(EndpointError, match="status 429"):
        reward(server.url, tmp_path, timeout_s=0.5, deadline_s=0.5, workers=1).score(PROMPTS[:2], RESPONSES[:2])
    assert 2 <= len(server.headers) < 20, "each wait is twice the last one, or a quarter of backoff_s at least"


def test_an_answer_that_nobody_asked_for_is_nobodys(server, tmp_path):
    server.faults = [twice] * len(PROMPTS)
    assert reward(server.url, tmp_path, batch_size=1, workers=1).score(PROMPTS, RESPONSES).tolist() == SCORES


def test_no_more_in_flight_than_allowed(server, tmp_path):
    reward(server.url, tmp_path, batch_size=1, workers=2).score(PROMPTS, RESPONSES)
    assert server.most_busy == 2


def test_a_version_is_asked_once_for_all_runs(server, tmp_path):
    for _ in range(2):
        assert reward(server.url, tmp_path, version="v1").score(PROMPTS, RESPONSES).tolist() == SCORES
    assert len(server.seen) == 11
    reward(server.url, tmp_path, version="v2").score(PROMPTS, RESPONSES)
    assert len(server.seen) == 22, "another version is another reward"


def test_without_a_version_only_this_process_remembers(server, tmp_path):
    one = reward(server.url, tmp_path)
    assert one.score(PROMPTS, RESPONSES).equal(one.score(PROMPTS, RESPONSES))
    assert len(server.seen) == 11
    reward(server.url, tmp_path).score(PROMPTS, RESPONSES)
    assert len(server.seen) == 22


def test_the_key_goes_to_the_server_and_nowhere_else(server, tmp_path, monkeypatch):
    monkeypatch.setenv("REWARD_KEY", KEY)
    one = reward(server.url, tmp_path, api_key_env="REWARD_KEY", version="v1")
    one.score(PROMPTS, RESPONSES)
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert KEY not in one.id
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]
    server.faults = [status(401)]
    with pytest.raises(EndpointError) as refused:
        reward(server.url, tmp_path, api_key_env="REWARD_KEY").score(PROMPTS, RESPONSES)
    assert KEY not in str(refused.value)


def test_a_key_that_is_not_set_is_said_before_anything_is_sent(server, tmp_path, monkeypatch):
    monkeypatch.delenv("REWARD_KEY", raising=False)
    with pytest.raises(ConfigError, match="api_key_env=REWARD_KEY: no such environment variable is set"):
        reward(server.url, tmp_path, api_key_env="REWARD_KEY").score(PROMPTS, RESPONSES)
    assert server.headers == []


def test_a_name_that_leads_to_a_metadata_address_is_refused(monkeypatch):
    found = [(2, 1, 6, "", ("169.254.169.254", 0))]
    monkeypatch.setattr("alignlab.io.http.socket.getaddrinfo", lambda *_: found)
    with pytest.raises(ConfigError, match=r"reward\.url=http://innocent\.example: is a link-local or metadata address"):
        http_client(endpoint_of(settings("http://innocent.example/score")))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/score",
        "file:///etc/passwd",
        "score",
        "http://",
        "http://169.254.169.254/latest",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://metadata.google.internal/",
    ],
)
def test_addresses_that_are_none_are_refused(url):
    with pytest.raises(ConfigError, match=r"^reward\.url"):
        settings(url)


def test_a_password_in_the_address_is_refused_and_not_shown():
    with pytest.raises(ConfigError) as refused:
        settings(f"http://user:{KEY}@host/score")
    assert KEY not in str(refused.value)
    with pytest.raises(ConfigError) as refused:
        settings("http://host/score", api_key_env="sk-" + KEY)
    assert KEY not in str(refused.value)
