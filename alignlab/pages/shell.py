"""The frame of every page: one HTML file with its style and scripts, under a policy that lets nothing else act or load.

The content-security policy names style and scripts by their SHA-256. Nothing may be fetched, framed or sent.
"""

import base64
import functools
import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from alignlab.io.atomic import replacing
from alignlab.pages.parts import Section, key_parts
from alignlab.pages.text import visible

PLOTLY = "plotly-basic-4.1.1.min.js.gz"
"""See vendor/README.md."""
_TEMPLATES = Environment(
    loader=PackageLoader("alignlab.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["key_parts"] = key_parts


@dataclass(frozen=True)
class Link:
    """A link to another page or file, by a relative path."""

    text: str
    href: str

    def __post_init__(self) -> None:
        """Refuse whatever leaves the folder tree.

        Raises:
            ValueError: for an address or an absolute path.
        """
        if ":" in self.href.split("/")[0] or self.href.startswith(("/", "\\")):
            raise ValueError(f"{self.href}: must be a relative path")


def write_page(
    path: Path,
    template: str,
    *,
    title: str,
    links: Sequence[Link] = (),
    scripts: Sequence[str] = (),
    private: bool = False,
    **values: Any,
) -> Path:
    """Write a page atomically and return its path.

    Args:
        path: the file.
        template: its name in templates/.
        title: heading and title.
        links: to other pages, in the head.
        scripts: names of the page's own scripts in static/, in order; plotly.js comes before them.
        private: whether only the owner may read the file, because it holds harmful text.
        **values: for the template.
    """
    codes = [_plotly(), *map(_static, scripts)] if scripts else []
    style = _static("page.css")
    text = _TEMPLATES.get_template(template).render(
        title=title, links=links, style=style, scripts=codes, policy=_policy(style, codes), **values
    )
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="")
        if private:
            unfinished.chmod(0o600)
    return path


def write_report(
    path: Path,
    sections: Sequence[Section],
    *,
    title: str,
    warnings: Sequence[str] = (),
    links: Sequence[Link] = (),
    private: bool = False,
) -> Path:
    """Write a page of sections atomically and return its path.

    Args:
        path: the file.
        sections: from top to bottom.
        title: heading and title.
        warnings: above the sections.
        links: to other pages and files.
        private: whether only the owner may read the file, because it holds harmful text.
    """
    shown = [replace(one, title=visible(one.title), texts=[visible(text) for text in one.texts]) for one in sections]
    said = [visible(warning) for warning in warnings]
    return write_page(
        path, "report.html.j2", title=visible(title), links=links, private=private, sections=shown, warnings=said
    )


def packed(value: Any) -> str:
    """JSON, gzip, base64: data of a page that its script unpacks when asked."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode("utf-8", "backslashreplace"), 6, mtime=0)).decode()


def _policy(style: str, scripts: Sequence[str]) -> str:
    allowed = " ".join(map(_hash, scripts)) or "'none'"
    styles = [style, ""] if scripts else [style]  # plotly.js adds an empty style element and fills it rule by rule
    return (
        f"default-src 'none'; script-src {allowed}; style-src {' '.join(map(_hash, styles))}; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@functools.cache
def _static(name: str) -> str:
    return (files("alignlab.pages") / "static" / name).read_text(encoding="utf-8")


@functools.cache
def _plotly() -> str:
    return gzip.decompress((files("alignlab.pages") / "vendor" / PLOTLY).read_bytes()).decode()
