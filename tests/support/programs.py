"""Installed packages that offer reward programs, as a user's own would."""

import sys
from contextlib import contextmanager


@contextmanager
def installed(folder, monkeypatch, module, offered, source, *, version="1.0"):
    """A package of one module that alignlab finds rewards in, for the length of a block.

    Args:
        folder: holds it.
        monkeypatch: pytest's.
        module: its name.
        offered: reward -> function of the module.
        source: of the module.
        version: of the package.
    """
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    name = module.replace("_", "-")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{reward} = {module}:{function}\n" for reward, function in offered.items()]
    (info / "entry_points.txt").write_text("[alignlab.rewards]\n" + "".join(lines))
    (folder / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    yield
    sys.modules.pop(module, None)
