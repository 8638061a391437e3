"""What alignlab makes of a command line before Hydra sees it: flags, new rewards, presets that give way."""

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from alignlab.errors import ConfigError, nearest

LONGEST_ARGUMENT = 20_000
DEEPEST = 32
_LONG_NUMBER = re.compile(r"\d[\d_]{1000}")


def check_arguments(argv: Sequence[str]) -> None:
    """Refuses arguments that Hydra's parser would take seconds for, or die of.

    Raises:
        ConfigError: naming the key.
    """
    for argument in argv:
        key = argument.partition("=")[0][:60]
        if len(argument) > LONGEST_ARGUMENT:
            raise ConfigError(f"{key}=...: is {len(argument)} characters long, must be at most {LONGEST_ARGUMENT}")
        if _LONG_NUMBER.search(argument):
            raise ConfigError(f"{key}=...: holds a number of more than 1,000 digits")
        if _nesting(argument) > DEEPEST:
            raise ConfigError(f"{key}=...: brackets are nested deeper than {DEEPEST} levels")


def _nesting(text: str) -> int:
    depth = deepest = 0
    for char in text:
        depth = max(0, depth + (char in "[{(") - (char in "]})"))
        deepest = max(depth, deepest)
    return deepest


def flags_last(argv: Sequence[str]) -> list[str]:
    """The same arguments with the overrides in one piece, as Hydra's parser wants them; flags may stand anywhere."""
    actions = {flag: action for action in get_args_parser()._actions for flag in action.option_strings}
    flags, overrides, rest = [], [], list(argv)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        flags.append(argument)
        named = [action for flag, action in actions.items() if flag == argument] or [
            action for flag, action in actions.items() if len(argument) > 2 and flag.startswith(argument)
        ]
        takes = named[0].nargs if named else 0
        if rest and (takes is None or (takes == "?" and rest[0] in (named[0].choices or ()))):
            flags.append(rest.pop(0))
    return overrides + flags


_OPEN = re.compile(
    r"(algorithm\.rewards|scorers)\.\w+(\.held_out)?(\.members\.\w+)?\.\w+=|(algorithm\.adapters|generator\.extra_body|target)(\.\w+)?="
)


def admit_new_keys(argv: Sequence[str]) -> list[str]:
    """Lets `algorithm.rewards.safer.beta=0.1` and `target.safer=-0.5` do without Hydra's `++` prefix.

    These mappings start empty, because their names come from the dataset or the server; Hydra would call them unknown.
    """
    return [f"++{argument}" if _OPEN.match(argument) else argument for argument in argv]


_FREE_TEXT = ("prompt_template", "template", "path", "adapter", "dir", "runs", "cache")
"""Last parts of the keys whose values are texts and paths, in which every character stands for itself."""


def quote_paths(argv: Sequence[str]) -> list[str]:
    """Quotes what Hydra's grammar refuses although it means itself: `=` in a path, a template with {raw_prompt}."""
    return [_quoted(argument) for argument in argv]


def _quoted(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if argument.startswith("-") or not equals:
        return argument
    if key.lstrip("+") == "algorithm.adapters":
        value = re.sub(r"(\w+)\s*:\s*([^,{}'\"]+)", lambda found: f"{found[1]}: '{found[2].strip()}'", value)
        return f"{key}={value}"
    if "=" in value and not any(mark in value for mark in "'\"\\({"):
        parts = re.split(r"([\[\],])", value)
        argument = key + equals + "".join(f"'{part.strip()}'" if "=" in part else part for part in parts)
    free = key.rpartition(".")[2] in _FREE_TEXT or key.lstrip("+").startswith("algorithm.adapters.")
    if free and not _is_readable(argument):
        return f"{key}={QuotedString(value, Quote.single).with_quotes()}"
    return argument


def _is_readable(argument: str) -> bool:
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True


def parse_flags(argv: Sequence[str]) -> Namespace:
    """Hydra's own flags.

    Raises:
        ConfigError: for an unknown flag, and for the two that cannot work here.
    """
    parser = get_args_parser()
    parser.prog = "python -m alignlab"
    known = [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]

    def refuse(message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ").split()[0]
        if not unknown.startswith("-"):
            raise ConfigError(message)
        raise ConfigError(f"{unknown}: no such flag; settings are key=value without dashes; {nearest(unknown, known)}")

    parser.error = refuse
    flags: Namespace = parser.parse_args(argv)
    if flags.config_path:
        raise ConfigError(f"--config-path {flags.config_path}: not supported; --config-dir adds a folder to conf/")
    if flags.experimental_rerun:
        raise ConfigError("--experimental-rerun: not supported, because it unpickles; give the same command again")
    if flags.config_dir and not Path(flags.config_dir).is_dir():
        raise ConfigError(f"--config-dir {flags.config_dir}: no such folder")
    if flags.resolve and not (flags.cfg or flags.help):
        raise ConfigError("--resolve: goes with --cfg job")
    return flags


def one_run(argv: Sequence[str], overrides: Sequence[str], first: Sequence[str]) -> list[str]:
    """The arguments with one run's overrides in place of a sweep's; Hydra shows the config of one run only.

    Args:
        argv: the whole command line.
        overrides: of the sweep, as typed.
        first: the first run's overrides.
    """
    return [argument for argument in argv if argument not in (*overrides, "-m", "--multirun")] + list(first)


def yielding_presets(params: Mapping[str, object], overrides: Sequence[str]) -> list[str]:
    """Overrides that take out of a preset's sweep what the command line sets, which always wins.

    Hydra would run the product of both, `--config-name w_front w=0.3` seven times.
    """
    given = {override.lstrip("+").partition("=")[0] for override in overrides}
    kept = {key: value for key, value in params.items() if key not in given}
    if len(kept) == len(params):
        return []
    return ["hydra.sweeper.params=null", *(f"{key}={value}" for key, value in kept.items())]
