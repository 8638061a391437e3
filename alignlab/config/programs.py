"""Which functions can be a reward: a closed table, and what installed packages name. Imports none of them."""

from importlib.metadata import EntryPoint, entry_points

from alignlab.config.names import PROGRAM_GROUP, PROGRAMS


def programs() -> dict[str, EntryPoint]:
    """reward.function -> where the function is: alignlab's own and those of installed packages. Nothing is imported.

    A configuration names a function, never an import path: to install a package that brings one is the user's own act.
    The names of alignlab's own functions cannot be taken.
    """
    installed = {found.name: found for found in entry_points(group=PROGRAM_GROUP)}
    own = {name: EntryPoint(name, path, PROGRAM_GROUP) for name, path in PROGRAMS.items()}
    return {**installed, **own}


def program_version(name: str) -> str:
    """The distribution that brings a function, `package==1.2`; of alignlab's own the bare name."""
    found = programs().get(name)
    brings = getattr(found, "dist", None)
    return f"{brings.name}=={brings.version}" if brings else "alignlab"
