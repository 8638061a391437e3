"""From the records of a synthesis run, or of all its shards, to the files that are trained on."""

import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from alignlab.config.names import RANKED_FILE
from alignlab.config.plan import Plan
from alignlab.config.schema import SynthesisConfig
from alignlab.data.rankings import BENIGN
from alignlab.errors import ConfigError
from alignlab.io.atomic import write_lines, write_text
from alignlab.pages import Link
from alignlab.runs.progress import quiet_libraries, say
from alignlab.runs.result import checked_result, finished_result, recorded_config
from alignlab.runs.runner import run_in_folder
from alignlab.synthesis.card import card
from alignlab.synthesis.export import export, rows_of
from alignlab.synthesis.page import write_page
from alignlab.synthesis.responses import REQUESTS, RESPONSES, VERDICTS
from alignlab.synthesis.sets import SynthesisStats, ranked_sets

_OF_A_SHARD = ("shard", "num_shards", "merge")
"""Keys of the algorithm in which the shards of one whole, and their merge, differ."""
_LOCAL = {"path", "adapter", "control", "held_out", "base_url", "api_key_env", "batch_size", "workers"}
"""Keys that name files and machines, of no use to a reader elsewhere; `inputs` has the hashes."""
LeftOut = tuple[Counter[str], Counter[str]]
"""Reason -> requests: left out before the shards were made, and of this shard (of all shards, when merged)."""


@dataclass(frozen=True)
class SetSource:
    """What the sets are made of, for the card, and to tell whether shards are of one whole."""

    name: str
    """Of the data set."""
    kind: str
    pairs: str
    """Which pairs the pair files hold."""
    filter: str
    settings: Mapping[str, Any]
    """Of the run, as plain values: model, dataset, generator, judge, algorithm, seed."""
    inputs: Mapping[str, str]
    """Hashes of the files that the settings name."""

    def for_card(self) -> dict[str, Any]:
        """The settings, without paths, keys and shards."""
        names = ("model", "dataset", "algorithm", "generator", "judge")
        groups = {name: dict(self.settings[name]) for name in names}
        for key in _OF_A_SHARD:
            del groups["algorithm"][key]
        if groups["algorithm"]["filter"] == "none":
            del groups["judge"]
        inputs = {key: value for key, value in self.inputs.items() if not key.startswith("algorithm.merge")}
        plain = {
            name: {key: value for key, value in group.items() if key not in _LOCAL} for name, group in groups.items()
        }
        return {**plain, "seed": self.settings["seed"], "inputs": inputs}


@dataclass(frozen=True)
class Exported:
    """What an export hands back for result.json."""

    counts: dict[str, Any]
    artifacts: dict[str, str]


def export_sets(folder: Path, source: SetSource, *, left_out: LeftOut, links: Sequence[Link] = ()) -> Exported:
    """Write ranked sets, pairs, card and page from the records in a run folder.

    Args:
        folder: the run's, with requests, responses and, where they were judged, verdicts.
        source: what the sets are made of.
        left_out: counts of requests without a set.
        links: of the page.

    Raises:
        ConfigError: if no set is left.
    """
    of_whole, of_shard = left_out
    stats = SynthesisStats(left_out=+(of_whole + of_shard))
    sets = ranked_sets(
        rows_of(folder / REQUESTS),
        rows_of(folder / RESPONSES),
        rows_of(folder / VERDICTS),
        keep=source.filter,
        stats=stats,
    )
    conversations = any(not isinstance(row["prompt"], str) for row in rows_of(folder / REQUESTS))
    written = export(sets, folder, strategy=source.pairs, stats=stats, conversations=conversations)
    counts = stats.record()
    if not stats.sets:
        raise ConfigError(f"dataset={source.name}: no set is left ({_counted(counts['left_out'])})")
    of_card: dict[str, Any] = {
        "kind": source.kind,
        "settings": source.for_card(),
        "counts": counts,
        "strategy": source.pairs,
    }
    write_text(folder / "README.md", card(**of_card))
    write_page(folder, **of_card, sets=rows_of(folder / RANKED_FILE), links=links)
    _say_counts(counts)
    return Exported(
        {"synthesis": counts, "left_out_of_whole": dict(of_whole), "left_out_of_shard": dict(of_shard)},
        {**written, "responses": RESPONSES, "card": "README.md", "page": "index.html"},
    )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def _say_counts(counts: Mapping[str, Any]) -> None:
    made = ", ".join(f"{count} {kind} sets ({counts['pairs'][kind]} pairs)" for kind, count in counts["sets"].items())
    say(f"made: {made or 'nothing'}")
    for title in ("left_out", "dropped"):
        for reason, count in counts[title].items():
            say(f"{title.replace('_', ' ')}: {count} {reason}")
    say(f"lengths: {counts['length_bias']['note']}")
    if BENIGN not in counts["sets"]:
        say(
            "no harmless sets: nothing here holds a policy's ordinary answers while it learns to correct; "
            "name harmless requests with algorithm.control=FILE"
        )


@dataclass(frozen=True)
class Merged:
    """What the shards of one whole have in common."""

    inputs: dict[str, Any]
    left_out: LeftOut


def merge_shards(folders: Sequence[Path], target: Path, source: SetSource) -> Merged:
    """Join the records of all shards of one whole; they are those of a single run over all of it, to the byte.

    Args:
        folders: the shards.
        target: folder of the joined records.
        source: what the whole is made of.

    Raises:
        ConfigError: if a folder is no finished shard, two differ in more than their shard, or one is missing.
    """
    results = [_result_of(folder) for folder in folders]
    _refuse_mixtures(source, folders)
    for name in (REQUESTS, RESPONSES, VERDICTS):
        files = [folder / name for folder in folders if (folder / name).exists()]
        if files:
            write_lines(target / name, _merged(files))
    _refuse_other_inputs(folders, results)
    of_shards: Counter[str] = sum((Counter(result["left_out_of_shard"]) for result in results), Counter())
    inputs = {name: results[0]["inputs"].get(name) for name in ("model", "revision", "dataset")}
    return Merged(inputs, (Counter(results[0]["left_out_of_whole"]), of_shards))


def _refuse_other_inputs(folders: Sequence[Path], results: Sequence[dict[str, Any]]) -> None:
    """All shards must have read the same model and data: files may have changed between two of them."""
    for name, first in results[0]["inputs"].items():
        for folder, result in zip(folders, results, strict=True):
            if result["inputs"].get(name) != first:
                what = f"read another {name} than {folders[0]}, though the settings are the same; make one of them anew"
                raise ConfigError(f"algorithm.merge={folder}: {what}")


def _result_of(folder: Path) -> dict[str, Any]:
    checked = checked_result(folder)
    result = checked.result
    if result is None or result.algorithm != "synthesis" or "left_out_of_shard" not in result.extra:
        what = checked.fault or "holds no finished run of algorithm=synthesis"
        raise ConfigError(f"algorithm.merge={folder}: {what}")
    return result.to_json()


def _refuse_mixtures(source: SetSource, folders: Sequence[Path]) -> None:
    """All shards must be of the run that the merge's own settings describe, and each be there once."""
    plain = [recorded_config(folder) for folder in folders]
    wanted = _whole(json.loads(json.dumps(source.settings)))
    for folder, given in zip(folders, plain, strict=True):
        whole = _whole(given)
        differing = sorted(f"{group}" for group in wanted if whole.get(group) != wanted[group])
        if differing:
            raise ConfigError(f"algorithm.merge={folder}: was made with other settings of {', '.join(differing)}")
    shards = Counter(given["algorithm"]["shard"] for given in plain)
    counts = {given["algorithm"]["num_shards"] for given in plain}
    missing = sorted(set(range(max(counts))) - set(shards))
    twice = sorted(shard for shard, count in shards.items() if count > 1)
    if len(counts) > 1 or missing or twice:
        parts = [f"missing {missing}" if missing else "", f"twice {twice}" if twice else ""]
        split = "split into different numbers of shards" if len(counts) > 1 else ", ".join(filter(None, parts))
        raise ConfigError(f"algorithm.merge: must name every shard once: {split}")


def _whole(plain: Mapping[str, Any]) -> dict[str, Any]:
    """What all shards of one whole have in common."""
    kept = {name: plain[name] for name in ("seed", "model", "dataset", "generator", "judge")}
    kept["algorithm"] = {key: value for key, value in plain["algorithm"].items() if key not in _OF_A_SHARD}
    return kept


def _merged(files: Sequence[Path]) -> Iterator[bytes]:
    """The lines of files that are sorted by id, sorted by id."""
    with ExitStack() as stack:
        streams = [_keyed(stack.enter_context(file.open("rb"))) for file in files]
        before = None
        for key, line in heapq.merge(*streams, key=lambda item: item[0]):
            if key == before:
                raise ConfigError(f"algorithm.merge: the id {key} of {files[0].name} comes twice")
            before = key
            yield line


def _keyed(stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    for line in stream:
        yield json.loads(line)["id"], line


def after_sweep(jobs: Sequence[tuple[Plan[SynthesisConfig], Path]]) -> None:
    """Merge the shards of each whole, of several seeds for one, that a sweep made all of."""
    wholes: dict[Path, list[tuple[Plan[SynthesisConfig], Path]]] = {}
    for plan, folder in jobs:
        if plan.algorithm.num_shards > 1:
            wholes.setdefault(plan.with_algorithm(shard=0, num_shards=1).folder, []).append((plan, folder))
    for parts in wholes.values():
        plan, shards = parts[0][0], list(dict.fromkeys(folder for _, folder in parts))
        wanted, finished = plan.algorithm.num_shards, [folder for folder in shards if finished_result(folder)]
        if len(shards) < wanted:  # the others are elsewhere
            continue
        if len(finished) < wanted:
            say(f"no merge: {len(finished)} of {wanted} shards of seed={plan.seed} are finished")
            continue
        joined = plan.with_algorithm(shard=0, num_shards=1, merge=[str(folder) for folder in finished])
        quiet_libraries()
        try:
            run_in_folder(joined, joined.folder)
        except ConfigError as error:
            say(f"no merge: {error}")
        else:
            say(f"merged: {joined.folder}")
