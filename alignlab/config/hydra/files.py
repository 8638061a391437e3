"""What a configuration file outside the installed conf/ may hold: plain YAML of bounded size, without resolvers."""

import os
import re
from pathlib import Path

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigResult

from alignlab.config.roots import ROOTS, config_root
from alignlab.errors import ConfigError, holds_key

MOST_BYTES = 256 * 2**10
MOST_NODES = 5_000
LONGEST_VALUE = 10_000
DEEPEST = 32
"""Of one file; the longest of conf/ has 2 KiB, 50 nodes and 4 levels."""

PLAIN_INTERPOLATION = re.compile(r"\$\{([A-Za-z]\w*(?:\.[\w-]+)*)\}")
"""`${model.learning_rate}`: another setting's value, by its whole name."""

_LONG_NUMBER = re.compile(r"[-+]?(?:[\d_:]{41,}|0[xob][\da-fA-F_]{41,})")


class LimitedFileSource(FileConfigSource):  # type: ignore[misc]  # hydra's plugins are untyped
    """Hydra's reader of configuration folders, which looks at a file before it parses it."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Parses a file of the folder.

        Raises:
            ConfigError: naming file and line, if it lies elsewhere, is too large, or holds more than plain YAML.
        """
        file = Path(os.path.realpath(os.path.join(self.path, self._normalize_file_name(config_path))))
        if file.exists() and not is_installed(f"file://{self.path}"):
            _check_file(file, Path(os.path.realpath(self.path)))
        try:
            return super().load_config(config_path)
        except yaml.YAMLError as error:
            raise ConfigError(_not_yaml(file, error)) from None


LimitedFileSource.__name__ = FileConfigSource.__name__
"""Hydra knows a source by this name when a worker registers its own again, and would refuse another."""


def is_installed(source: str) -> bool:
    """Whether a configuration's source is alignlab's own or an installed package, which may hold anything."""
    if not source.startswith("file://"):
        return True
    folder = os.path.realpath(source.removeprefix("file://"))
    return any(folder == os.path.realpath(config_root(name)) for name in ROOTS)


def has_resolver(text: str) -> bool:
    """Whether a text has an interpolation that is more than another setting's name."""
    return "${" in PLAIN_INTERPOLATION.sub("", text)


def _check_file(file: Path, root: Path) -> None:
    if root not in file.parents:
        raise ConfigError(f"{file}: lies outside of --config-dir {root}")
    if not file.is_file():
        raise ConfigError(f"{file}: is no file")
    if file.stat().st_size > MOST_BYTES:
        raise ConfigError(f"{file}: is larger than {MOST_BYTES // 2**10} KiB")
    try:
        check_yaml(file.read_text(encoding="utf-8"), file)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: byte {error.start} is not UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(_not_yaml(file, error)) from None


def check_yaml(text: str, file: Path) -> None:
    """Refuses what plain settings do not need, from the parser's events alone: nothing is built.

    Args:
        text: of the file.
        file: for messages.

    Raises:
        ConfigError: naming file and line.
        yaml.YAMLError: if it is not YAML.
    """
    depth = 0
    before = ""
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        wrong = _wrong_node(event, before)
        if depth > DEEPEST:
            wrong = f"is nested deeper than {DEEPEST} levels"
        if count > MOST_NODES:
            wrong = f"holds more than {MOST_NODES} values"
        if wrong:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise ConfigError(f"{file}:{line}: {wrong}")
        before = event.value if isinstance(event, yaml.ScalarEvent) else ""


def _wrong_node(event: yaml.Event, before: str) -> str | None:
    """What is wrong with a node; `before` is the scalar in front of it, which is its key where it is a value."""
    if isinstance(event, yaml.AliasEvent):
        return f"*{event.anchor}: aliases are not supported; write the value again, or ${{key}}"
    tag = getattr(event, "tag", None)
    if tag is not None:
        return f"{tag}: tags are not supported"
    return _wrong_scalar(event, before) if isinstance(event, yaml.ScalarEvent) else None


def _wrong_scalar(event: yaml.ScalarEvent, before: str) -> str | None:
    text = event.value
    if len(text) > LONGEST_VALUE:
        return f"{text[:20]}...: is longer than {LONGEST_VALUE} characters"
    if event.style is None and _LONG_NUMBER.fullmatch(text) and not holds_key(text):
        return f"{text[:20]}...: is longer than any number here"
    if has_resolver(text):
        return (
            f"{text}: only ${{KEY}} with a setting's whole name is read from a file; give the value on the command line"
        )
    if holds_key(text if before != "revision" else ""):
        return "holds a key to a service; name the environment variable that holds it instead (api_key_env)"
    return None


def _not_yaml(file: Path, error: yaml.YAMLError) -> str:
    """Without the lines of the file, which need not be a configuration."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"{file}{f':{mark.line + 1}' if mark else ''}: not YAML: {problem or 'it cannot be read'}"
