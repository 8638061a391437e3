"""Read a page as a browser would: its tags, its texts, and the data that its script unpacks."""

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</pre></details><iframe src='https://example.org'>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "[link](javascript:alert(1))",
    "<a href=https://example.org>x</a>",
    "<style>@import 'https://example.org'</style>",
    "<meta http-equiv=refresh content=0>",
    "{{ 7*7 }}{% raw %}",
    "&lt;b&gt;",
    '=HYPERLINK("https://example.org")',
    "\x1b[31mred\x1b[0m",
    "\x00nul",
    "\u202eturned",
    "\u2066isolate\u2069",
    "\x07bell\x08",
    "<!-- --><!--<script>",
    "]]><![CDATA[",
    "x" * 1_000_000,
)


class Parsed(HTMLParser):
    """Tags with their attributes, and the text of each script and style element."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.styles: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag == "style":
            self.styles.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            attributes, text = self.scripts.pop()
            self.scripts.append((attributes, text + data))
        elif self.cdata_elem == "style":
            self.styles.append(self.styles.pop() + data)
        else:
            self.texts.append(data)

    def data(self, id: str) -> Any:
        """The data of a block, unpacked."""
        (text,) = [text for attributes, text in self.scripts if attributes.get("id") == id]
        return json.loads(gzip.decompress(base64.b64decode(text.strip())))


def check_safe(path: Path) -> Parsed:
    """Nothing in the page acts or loads but what its policy names; the page as it was parsed."""
    page = Parsed(path)
    (policy,) = [tag[1]["content"] or "" for tag in page.tags if tag[1].get("http-equiv") == "Content-Security-Policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert "unsafe" not in policy
    assert "http" not in policy
    code = [text for attributes, text in page.scripts if "type" not in attributes]
    allowed = set(re.findall(r"'(sha256-[^']+)'", directives["script-src"]))
    assert allowed == {sha256(text) for text in code}
    assert {sha256(text) for text in page.styles} <= set(re.findall(r"'(sha256-[^']+)'", directives["style-src"]))
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "object", "embed", "base", "form", "link", "svg"), tag
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        address = attributes.get("href") or attributes.get("src") or ""
        assert not re.match(r"[a-z]+:|/", address) or address.startswith("data:image/"), address
    return page


def sha256(text: str) -> str:
    """As a content-security policy names a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
