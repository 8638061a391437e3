"""Program that renders one chat template in a process of its own, under limits of memory and processor time.

A template comes with a model from anywhere and may loop for ever or allocate without end. Input: one JSON line
`{"template", "variables"}`, then lines `[{"messages", "ask"}, ...]`; output: a line `{"text"}` or `{"error"}` for each.
Imports nothing of alignlab and no transformers, so that it starts in a fraction of a second.
"""

import json
import signal
import sys
from contextlib import suppress
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_BYTES = 1 << 30
"""Address space of this process."""
MAX_SECONDS = 10.0
"""Processor time for one conversation, which takes a fraction of a millisecond."""
MAX_CHARACTERS = 1 << 22
"""Of one rendered conversation, beyond eight times the characters of its turns."""


class _Generation(jinja2.ext.Extension):
    """transformers' `{% generation %}` block, which marks the assistant's words and changes no text."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it so

    def parse(self, parser: Any) -> Any:
        """The block's own statements."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """Refuses attributes that begin with an underscore, as transformers does."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"namespace attribute {name!r}")
        super().__setitem__(name, value)


def compiled(template: str) -> jinja2.Template:
    """A template in the environment that transformers renders it in."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "namespace": _Namespace,
    }
    return environment.from_string(template)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _rendered(template: jinja2.Template, variables: dict[str, Any], asked: dict[str, Any]) -> dict[str, str]:
    signal.setitimer(signal.ITIMER_VIRTUAL, MAX_SECONDS)  # SIGVTALRM ends the process
    given = {"messages": asked["messages"], "tools": None, "documents": None, "add_generation_prompt": asked["ask"]}
    limit = MAX_CHARACTERS + 8 * len(json.dumps(asked["messages"]))
    pieces: list[str] = []
    try:
        length = 0
        for piece in template.generate(**given, **variables):
            pieces.append(piece)
            length += len(piece)
            if length > limit:
                return {"error": f"it writes over {limit:,} characters"}
        return {"text": "".join(pieces)}
    except MemoryError:
        return {"error": f"it needs more than {MAX_BYTES >> 30} GiB of memory"}
    except Exception as error:  # templates raise what they like
        return {"error": _one_line(error)}
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def main() -> None:
    """Answer line by line until the input ends."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    first = json.loads(sys.stdin.readline())
    signal.setitimer(signal.ITIMER_VIRTUAL, MAX_SECONDS)
    template, fault = None, ""
    try:
        template = compiled(first["template"])
    except MemoryError:
        fault = f"it needs more than {MAX_BYTES >> 30} GiB of memory"
    except Exception as error:
        fault = f"is no valid template: {_one_line(error)}"
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    for line in sys.stdin:
        for asked in json.loads(line):
            found = {"error": fault} if template is None else _rendered(template, first["variables"], asked)
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()  # the reader knows which conversation ended the process


if __name__ == "__main__":
    main()
