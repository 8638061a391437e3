"""Servers that mean harm, or are not what was thought: bounded memory, soon said, nothing shown that acts."""

import gzip
import json
import subprocess
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from alignlab.errors import ConfigError
from alignlab.io.client import Call
from alignlab.io.endpoint import Endpoint
from alignlab.io.openai_protocol import openai_server, without_key
from alignlab.io.text import printable

MANY, MIB = 200, 2**20
KEY = "sk-test-0123456789abcdefghijkl"


def bomb():
    """MANY MiB of blanks, packed into about a thousandth of that."""
    packer = zlib.compressobj(1, wbits=31)
    return b"".join([*(packer.compress(b" " * MIB) for _ in range(MANY)), packer.flush()])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Silent."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls += 1
        try:
            getattr(self, self.server.mode)()
        except OSError:
            self.close_connection = True

    def send(self, status, data, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(data)

    def good(self):
        self.send(200, b'{"choices": []}')

    def packed(self):
        self.send(200, gzip.compress(b'{"choices": []}'), Content_Encoding="gzip")

    def gzip_bomb(self):
        self.send(200, self.server.bomb, Content_Encoding="gzip")

    def giant(self):
        self.send_response(200)
        self.send_header("Content-Length", str(MANY * MIB))
        self.end_headers()
        for _ in range(MANY):
            self.wfile.write(b" " * MIB)
            self.server.sent += 1

    def brotli(self):
        self.send(200, b"abc", Content_Encoding="br")

    def redirect(self):
        self.send(307, b"", Location=f"http://elsewhere.example/v1?key={KEY}")

    def login(self):
        self.send(200, b"<!doctype html><title>Sign in</title>", Content_Type="text/html")

    def stream(self):
        self.send(200, b'data: {"choices": []}\n\n', Content_Type="text/event-stream")

    def spaced_key(self):
        message = f"\x1b[2Jno: {KEY[:14]} and {KEY[14:]}, or {' '.join(KEY)}, or {KEY.upper()}\u202e"
        self.send(401, json.dumps({"error": {"message": message, "code": "x"}}).encode())


@pytest.fixture
def hostile():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.calls = server.sent = 0
    server.bomb = bomb()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ask(server, mode, count=2, **changes):
    server.mode = mode
    settings = {"workers": 4, "timeout_s": 30.0, "deadline_s": 600.0, "backoff_s": 0.01, **changes}
    url = f"http://127.0.0.1:{server.server_port}/v1"
    endpoint = Endpoint(section="judge", base_url=url, **{"api_key_env": None, **settings})
    replies = []
    calls = (Call(str(number), "completions", {}) for number in range(count))
    openai_server(endpoint, check=lambda body: None).ask(calls, lambda reply: replies.append(reply.body))
    return replies


def test_packed_answers_are_read(hostile):
    assert ask(hostile, "good") == ask(hostile, "packed") == [{"choices": []}] * 2


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("redirect", "redirect 307: redirects to elsewhere.example are not followed; give the address it leads to"),
        ("login", "a web page: a login"),
        ("stream", "an event stream: it streams, though"),
        ("giant", "more than 4 MiB"),
        ("gzip_bomb", "more than 4 MiB"),
        ("brotli", "an unknown compression"),
    ],
)
def test_a_server_of_another_kind_is_said_soon(hostile, mode, said):
    """Not after the 600 seconds of deadline_s."""
    with pytest.raises(ConfigError) as error:
        ask(hostile, mode)
    assert f"judge.base_url=http://127.0.0.1:{hostile.server_port}: answers with {said}" in str(error.value)
    assert KEY not in str(error.value)
    assert hostile.calls <= 6


def test_no_part_of_a_key_and_nothing_that_acts_is_shown(hostile, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with pytest.raises(ConfigError) as error:
        ask(hostile, "spaced_key", api_key_env="JUDGE_KEY")
    text = str(error.value)
    assert "judge.api_key_env=JUDGE_KEY" in text
    assert "\\x1b[2Jno: ***" in text
    assert text.isprintable()
    bare = "".join(filter(str.isalnum, text)).lower()
    secret = "".join(filter(str.isalnum, KEY))
    assert not [start for start in range(len(secret) - 5) if secret[start : start + 6] in bare]


def test_words_without_the_key_stay_as_they_are():
    assert without_key("model gpt-4o: not allowed", KEY) == "model gpt-4o: not allowed"
    assert without_key("a b", None) == "a b"
    assert without_key("say abc!", "abc") == "say ***!"
    assert printable("grün \u4f60 \x07") == "grün \u4f60 \\x07"


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from io_hostile import ask_at
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024
ask_at(int(sys.argv[2]), "good")
before = peak()
ask_at(int(sys.argv[2]), sys.argv[3])
print(peak() - before)
"""
"""MiB that asking takes, in a process of its own."""
HELPER = """
import asyncio, json, sys
from alignlab.errors import ConfigError
from alignlab.io.client import Call
from alignlab.io.endpoint import Endpoint
from alignlab.io.http import http_client
from alignlab.io.openai_protocol import openai_server

def ask_at(port, way):
    endpoint = Endpoint(section="judge", base_url=f"http://127.0.0.1:{port}/v1", api_key_env=None, workers=4,
                        timeout_s=60.0, deadline_s=60.0, backoff_s=0.01)
    if way == "good":
        http_client(endpoint)
    elif way == "without bounds":
        asyncio.run(_unbounded(endpoint))
    else:
        _bounded(endpoint)

def _bounded(endpoint):
    try:
        calls = (Call(str(number), "completions", {}) for number in range(4))
        openai_server(endpoint, check=lambda body: None).ask(calls, print)
    except ConfigError:
        pass

async def _unbounded(endpoint):
    async with http_client(endpoint) as client:
        await client.post(endpoint.url("completions"), json={})
"""


def mib_of_asking(server, tmp_path, mode, way="ours"):
    server.mode = mode
    (tmp_path / "io_hostile.py").write_text(HELPER)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(server.server_port), way]
    root = Path(__file__).parents[2]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    return int(ended.stdout.split()[-1])


@pytest.mark.parametrize("mode", ["gzip_bomb", "giant"])
def test_an_answer_without_end_takes_little_memory(hostile, tmp_path, mode):
    assert mib_of_asking(hostile, tmp_path, mode) < 60
    assert hostile.sent < MANY * 4 // 5


def test_read_without_bounds_it_would_take_much(hostile, tmp_path):
    """The control."""
    assert mib_of_asking(hostile, tmp_path, "gzip_bomb", "without bounds") > MANY
