"""Whole checkpoints: which files one has, with their hashes, and which is the newest whose files are all right."""

import json
import re
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from alignlab.io.atomic import write_json
from alignlab.io.hashes import file_hash
from alignlab.runs.progress import say

MANIFEST = "manifest.json"
"""A checkpoint's files and their hashes, written when all of them are there."""


class CheckpointManifest(TrainerCallback):  # type: ignore[misc]
    """Write a checkpoint's manifest: transformers writes its files one by one, and a crash may come between.

    The last step's has none before `write_last`: a run that is killed before its training was judged must not take a
    diverged model for its result.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self._last: Path | None = None

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Hash the files once every process has written its own."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.global_step >= state.max_steps:
            self._last = folder
        else:
            self._write(folder)

    def write_last(self) -> None:
        """The manifest of the last step's checkpoint, if one was saved."""
        if self._last is not None:
            self._write(self._last)

    def _write(self, folder: Path) -> None:
        self.trainer.accelerator.wait_for_everyone()
        if self.trainer.is_world_process_zero():
            write_json(folder / MANIFEST, _hashes(folder))


def last_whole_checkpoint(checkpoints: Path) -> str | None:
    """The newest checkpoint whose files are those of its manifest; a damaged one is passed over, and said so.

    Folders of other names (a user's copy) are left alone.
    """
    named = ((re.fullmatch(r"checkpoint-(\d+)", folder.name), folder) for folder in checkpoints.glob("checkpoint-*"))
    found = sorted(((int(match[1]), folder) for match, folder in named if match and folder.is_dir()), reverse=True)
    for _, folder in found:
        damage = _damage(folder)
        if damage is None:
            return str(folder)
        say(f"{folder}: {damage}; not used")
    return None


def is_at_the_end(checkpoint: str) -> bool:
    """Whether nothing is left to train after a whole checkpoint."""
    state = json.loads((Path(checkpoint) / "trainer_state.json").read_text())
    return bool(state["global_step"] >= state["max_steps"])


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return "was not written to its end"
    if not isinstance(manifest, dict) or "trainer_state.json" not in manifest:
        return f"{MANIFEST} is damaged"
    present = _hashes(folder)
    wrong = sorted(name for name, digest in manifest.items() if present.get(name) != digest)
    return f"{wrong[0]} is damaged" if wrong else None


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a checkpoint but the manifest itself."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(file.relative_to(folder)): file_hash(file) for file in files}
