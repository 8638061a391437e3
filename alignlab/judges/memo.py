"""What a run's judge remembers between attempts at the run: the known cases, what it spent, what its server takes."""

import json
from pathlib import Path
from typing import Any

from alignlab.io.atomic import write_json
from alignlab.io.hashes import sealed, unsealed
from alignlab.runs.progress import say


class Memo:
    """A small JSON file in the run's folder, rewritten whole.

    Args:
        folder: the run's folder; None remembers nothing beyond this process.
        judge_id: whose memory it is; another judge's is not read.
    """

    def __init__(self, folder: Path | None, judge_id: str) -> None:
        self._path = folder / "records" / "judge.json" if folder is not None else None
        self._state: dict[str, Any] = {"judge": judge_id}
        if self._path is not None and self._path.exists():
            try:
                there = unsealed(json.loads(self._path.read_bytes()))
                if there["judge"] == judge_id:
                    self._state = there
            except (ValueError, KeyError, TypeError, AttributeError):
                say(
                    f"{self._path}: is damaged; the control items are asked again, and what was spent before is unknown"
                )

    def get(self, name: str, default: Any) -> Any:
        """What was last kept under a name."""
        return self._state.get(name, default)

    def keep(self, name: str, value: Any) -> None:
        """Keeps a JSON value."""
        self._state[name] = value
        if self._path is not None:
            write_json(self._path, sealed(self._state))
