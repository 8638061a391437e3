"""Prompts that are trained on and held out at once: equal ones, and near duplicates where that is asked for."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from alignlab.data.files import data_files, located_rows
from alignlab.data.readers.prompts import prompt_in
from alignlab.data.records import Prompt, prompt_text
from alignlab.data.report import BadRow
from alignlab.data.splits import split_key
from alignlab.errors import ConfigError


def check_overlap(
    train_prompts: Sequence[Prompt], held_out_prompts: Sequence[Prompt], *, near_duplicates: float | None = None
) -> list[int | None]:
    """For each training prompt the index of a held-out prompt that it repeats; None where it repeats none.

    Args:
        train_prompts: what is trained on.
        held_out_prompts: what must not be.
        near_duplicates: least similarity, 0..1, of prompts that count as repeated beside equal ones; None compares as
            the split does (case, spacing, quotes and punctuation at the ends make no difference).
    """
    equal = {split_key(prompt): index for index, prompt in reversed(list(enumerate(held_out_prompts)))}
    found = [equal.get(split_key(prompt)) for prompt in train_prompts]
    if near_duplicates is None:
        return found
    from alignlab.data.near_duplicates import NearDuplicateIndex  # numpy; the command line stays light
    from alignlab.runs.progress import track

    known, added = NearDuplicateIndex(near_duplicates), []
    for index, prompt in enumerate(track(held_out_prompts, label="indexing held-out prompts")):
        if known.add(prompt_text(prompt)):
            added.append(index)
    for index, prompt in enumerate(track(train_prompts, label="comparing prompts")):
        if found[index] is None:
            like = known.find(prompt_text(prompt))
            found[index] = None if like is None else added[like]
    return found


def held_out_prompts(paths: Iterable[str], *, key: str = "dataset.held_out") -> Iterator[tuple[str, Prompt]]:
    """Yields (location, prompt) of files in any columns that dataset=prompts reads.

    Raises:
        ConfigError: for a path without data, or the first row without a prompt.
    """
    for path in paths:
        for file in data_files(Path(path), key=key):
            for number, row in located_rows(file.path):
                try:
                    if isinstance(row, BadRow):
                        raise row
                    yield f"{file.shown}:{number}", prompt_in(row)
                except BadRow as bad:
                    raise ConfigError(f"{key}={path}: {file.shown}:{number} {bad.column}: {bad.reason}") from None
