"""Where the configuration files lie."""

from pathlib import Path

ROOTS = ("conf", "sweeps", "launchers")
_PACKAGE = Path(__file__).resolve().parent.parent


def config_root(name: str) -> Path:
    """`conf`, `sweeps` or `launchers`: inside the installed package, else beside the checkout's package."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name
