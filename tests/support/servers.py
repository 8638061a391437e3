"""A chat server of ours that judges by a fixed rule and fails in the ways that servers fail.

    with FaultServer(fault="429", share=0.15) as server:
        ...  # judge.base_url = server.url

The rule: a continuation that says `sorry` corrects its course. Which prompts meet the fault is decided by a hash of the
prompt, so it does not depend on the order of the calls; a transient fault meets a prompt's first call only.
"""

import contextlib
import email.utils
import hashlib
import json
import os
import re
import signal
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL, KEY = "rule-judge", "sk-test-0123456789abcdefghijkl"
HANG_S, DRIP_S = 20.0, 0.02
_DATA = re.compile(r"^Continuation:\n((?:> .*\n)+)", re.MULTILINE)


def continuation_in(prompt):
    """The judged text as the server sees it; it must be quoted exactly once."""
    found = _DATA.findall(prompt)
    assert len(found) == 1, f"{len(found)} continuations"
    return "\n".join(line[2:] for line in found[0].rstrip("\n").split("\n"))


def verdict_of(text):
    corrected = "yes" if "sorry" in text else "no"
    return json.dumps(
        {
            "reason": f"it says {text.split()[-1]}",
            "quote": "sorry" if corrected == "yes" else "",
            "corrected": corrected,
        }
    )


def completion(content, finish="stop", **message):
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
    return {
        "object": "chat.completion",
        "model": MODEL,
        "choices": [choice],
        "usage": {"prompt_tokens": 300, "completion_tokens": 20},
    }


class Handler(BaseHTTPRequestHandler):
    """One connection. `self.server.owner` is the FaultServer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_one_request(self):
        with contextlib.suppress(ConnectionResetError):
            return super().handle_one_request()
        self.close_connection = True
        return None

    def do_POST(self):
        owner = self.server.owner
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if not data:  # the client died between its headers and its body
            self.close_connection = True
            return
        body = json.loads(data)
        with owner.lock:
            self.in_flight = True
            owner.flying += 1
            owner.most_flying = max(owner.most_flying, owner.flying)
        try:
            self.answer(owner, body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.land()

    def land(self):
        """Counts the call as over. Before its answer is sent: the client may call again before this thread goes on."""
        with self.server.owner.lock:
            self.server.owner.flying -= self.in_flight
            self.in_flight = False

    def end_headers(self):
        self.land()
        super().end_headers()

    def answer(self, owner, body):
        owner.saw(self.path, self.headers, body)
        prompt = body["messages"][0]["content"]
        self.good = completion(verdict_of(continuation_in(prompt)))
        if owner.pause:
            time.sleep(owner.pause)
        if owner.key and self.headers["Authorization"] != f"Bearer {owner.key}":
            return self.error(
                401, "invalid_api_key", f"Incorrect API key provided: {owner.key[:8]}****{owner.key[-4:]}"
            )
        refused = [name for name in owner.refuses if name in body]
        if refused:
            return self.error(400, "unsupported_parameter", f"Unsupported parameter: {refused[0]}")
        fault = owner.fault_for(prompt)
        if fault:
            return getattr(self, f"fault_{fault}")()
        owner.answered[prompt] += 1
        return self.send(200, self.good)

    def send(self, status, body, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": len(data), **headers}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(data)

    def error(self, status, code, message="no", **headers):
        self.send(status, {"error": {"message": message, "type": code, "param": None, "code": code}}, **headers)

    def log_message(self, *_):
        pass

    def reset(self):
        """A connection that ends by RST, not by FIN."""
        self.land()
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        raise ConnectionResetError

    # What passes when the call is made again.

    def fault_429(self):
        self.error(429, "rate_limit_exceeded")

    def fault_429_seconds(self):
        self.error(429, "rate_limit_exceeded", Retry_After="0.05")

    def fault_429_date(self):
        self.error(429, "rate_limit_exceeded", Retry_After=email.utils.formatdate(time.time() + 1, usegmt=True))

    def fault_429_nonsense(self):
        self.error(429, "rate_limit_exceeded", Retry_After="soon")

    def fault_500(self):
        self.error(500, "server_error")

    def fault_502(self):
        self.send(502, b"<html>Bad Gateway</html>", Content_Type="text/html")

    def fault_503(self):
        self.error(503, "overloaded", Retry_After="0.02")

    def fault_504(self):
        self.send(504, b"")

    def fault_408(self):
        self.error(408, "timeout")

    def fault_409(self):
        self.error(409, "conflict")

    def fault_425(self):
        self.send(425, b"too early")

    def fault_529(self):
        self.error(529, "overloaded_error")

    def fault_reset(self):
        self.reset()

    def fault_reset_after_headers(self):
        self.send_response(200)
        self.send_header("Content-Length", "500")
        self.end_headers()
        self.reset()

    def fault_closed(self):
        self.close_connection = True

    def fault_no_http(self):
        self.land()
        self.wfile.write(b"HELLO\r\n\r\n")
        self.close_connection = True

    def fault_truncated(self):
        self.send(200, json.dumps(self.good).encode()[:-9])

    def fault_short_body(self):
        data = json.dumps(self.good).encode()
        self.send(200, data[:40], Content_Length=len(data))
        self.close_connection = True

    def fault_chunk_cut(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"40\r\n" + json.dumps(self.good).encode()[:30])
        self.close_connection = True

    def fault_binary(self):
        self.send(200, b"\x80\x81\xff\x00" * 9)

    def fault_bad_gzip(self):
        self.send(200, json.dumps(self.good).encode(), Content_Encoding="gzip")

    def fault_html(self):
        self.send(200, b"<!doctype html><title>Sign in</title>", Content_Type="text/html")

    def fault_empty_body(self):
        self.send(200, b"")

    def fault_a_string(self):
        self.send(200, "yes")

    def fault_error_200(self):
        self.send(200, {"error": {"message": "overloaded", "code": 503}})

    def fault_no_choices(self):
        self.send(200, {**self.good, "choices": []})

    def fault_null_choices(self):
        self.send(200, {**self.good, "choices": None})

    def fault_no_message(self):
        self.send(200, {**self.good, "choices": [{"index": 0, "finish_reason": "stop"}]})

    def fault_content_list(self):
        self.send(200, completion([{"type": "text", "text": "yes"}]))

    def fault_redirect(self):
        self.send(307, b"", Location=self.server.owner.elsewhere)

    def fault_moved(self):
        self.send(301, b"", Location=self.server.owner.elsewhere)

    def fault_hang(self):
        self.server.owner.over.wait(HANG_S)
        self.close_connection = True

    def fault_drip(self):
        data = json.dumps(self.good).encode() + b" " * 2000
        self.send(200, data[:1], Content_Length=len(data))
        for byte in data[1:]:
            if self.server.owner.over.wait(DRIP_S):
                break
            self.wfile.write(bytes([byte]))

    def fault_slow_headers(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.server.owner.over.wait(DRIP_S):
            self.wfile.write(b"X-More: x\r\n")

    # What a judge may well answer in passing, and answers better when asked again.

    def fault_null_content(self):
        self.send(200, completion(None))

    def fault_empty_content(self):
        self.send(200, completion(" \n"))

    def fault_text_around(self):
        self.send(200, completion("Sure! " + self.good["choices"][0]["message"]["content"] + " Hope that helps."))

    # What is answered in another manner, and answered all the same.

    def fault_wrong_content_type(self):
        self.send(200, self.good, Content_Type="text/plain")

    def fault_twice(self):
        """A second, contradicting answer that nobody asked for, on the same connection."""
        self.send(200, self.good)
        self.send(200, completion('{"corrected": "yes"}'))
        self.close_connection = True

    def fault_code_fence(self):
        self.send(200, completion("```json\n" + self.good["choices"][0]["message"]["content"] + "\n```"))

    def fault_thinking(self):
        said = self.good["choices"][0]["message"]["content"]
        self.send(200, completion('<think>{"corrected": "yes"} or\nno?</think>\n\n' + said))

    def fault_bare_word(self):
        said = json.loads(self.good["choices"][0]["message"]["content"])["corrected"]
        self.send(200, completion(f"{said.title()}."))

    # What stays as it is, for this text.

    def fault_content_filter(self):
        self.send(200, completion(None, "content_filter"))

    def fault_length(self):
        self.send(200, completion('{"reason": "it goes on and', "length"))

    def fault_refusal(self):
        self.send(200, completion(None, refusal="I cannot look at this."))

    def fault_400(self):
        self.error(400, "context_length_exceeded", "too long")

    def fault_400_filter(self):
        self.error(400, "content_filter", "filtered")

    def fault_413(self):
        self.send(413, b"too large")

    def fault_422(self):
        self.send(422, {"detail": [{"msg": "no"}]})

    # What stops the run.

    def fault_401(self):
        self.error(401, "invalid_api_key", f"Incorrect API key provided: {KEY}")

    def fault_402(self):
        self.error(402, "payment_required")

    def fault_403(self):
        self.error(403, "forbidden")

    def fault_404(self):
        self.error(404, "model_not_found", "The model does not exist")

    def fault_quota(self):
        self.error(429, "insufficient_quota", Retry_After="1")

    def fault_quota_200(self):
        self.send(200, {"error": {"message": "pay", "code": "insufficient_quota"}})


def _names(start, end):
    """The faults that are defined between two of them, both included."""
    names = [name.removeprefix("fault_") for name in vars(Handler) if name.startswith("fault_")]
    return names[names.index(start) : names.index(end) + 1]


TRANSIENT = _names("429", "text_around")
HARMLESS = _names("wrong_content_type", "bare_word")
PERMANENT = {
    "content_filter": "content_filter",
    "length": "length",
    "refusal": "refusal",
    "null_content": "null_content",
    "empty_content": "empty",
    "text_around": "unparsed",
    "400": "refused_400",
    "400_filter": "content_filter",
    "413": "refused_413",
    "422": "refused_422",
}
"""Fault -> reason of the unscored verdict, where the fault meets each call for a text."""
STOPPING = _names("401", "quota_200")
SLOW = ("429_date", "hang", "drip", "slow_headers")


class FaultServer:
    """The server, as a context manager.

    Args:
        fault: a name of the lists above, or None.
        share: of the prompts that meet it.
        always: the fault meets each call for such a prompt, not the first alone.
        key: the only key that is taken; None takes any.
        refuses: settings of a call that are answered by 400.
        pause: seconds before each answer.
    """

    def __init__(self, fault=None, *, share=0.15, always=False, key=None, refuses=(), pause=0.0):
        self.fault, self.share, self.always, self.key, self.refuses = fault, share, always, key, tuple(refuses)
        self.pause = pause
        self.lock, self.over = threading.Lock(), threading.Event()
        self.calls, self.answered, self.headers = Counter(), Counter(), []
        self.flying = self.most_flying = 0
        self.elsewhere = "http://127.0.0.1:9/"
        self.victim = None

    def __enter__(self):
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads, self._http.block_on_close = True, False
        self._http.owner = self
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self._http.shutdown()
        self._http.server_close()

    def kill_client(self, pid, after):
        """Sends SIGKILL to a process when so many further calls have come in."""
        with self.lock:
            self.victim = (pid, self.calls.total() + after)

    def saw(self, path, headers, body):
        with self.lock:
            self.calls[body["messages"][0]["content"]] += 1
            self.headers.append((path, dict(headers)))
            if self.victim and self.calls.total() >= self.victim[1]:
                os.kill(self.victim[0], signal.SIGKILL)
                self.victim = None

    def meets(self, prompt):
        """Whether a prompt is among those that meet the fault; the known cases never are."""
        if "garden shed" in prompt:
            return False
        text = continuation_in(prompt)
        return int(hashlib.sha256(text.encode()).hexdigest(), 16) % 10_000 < self.share * 10_000

    def fault_for(self, prompt):
        first = self.calls[prompt] == 1
        return self.fault if self.fault and self.meets(prompt) and (first or self.always) else None
