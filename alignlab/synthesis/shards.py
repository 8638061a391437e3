"""From the records of a synthesis run, or of all its shares, to the files that are trained on."""

import dataclasses
import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from alignlab.config.fingerprints import input_fingerprints
from alignlab.config.plan import Plan, plan_of
from alignlab.config.schema import RunConfig, SynthesisConfig
from alignlab.errors import ConfigError
from alignlab.io.atomic import write_lines, write_text
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import quiet_libraries, say
from alignlab.runs.result import Outcome, finished_result
from alignlab.runs.runner import run_in_folder
from alignlab.synthesis.card import card
from alignlab.synthesis.export import export, rows_of
from alignlab.synthesis.sets import Account, ranked_sets

REQUESTS, RESPONSES, VERDICTS = "requests.jsonl", "responses.jsonl", "verdicts.jsonl"
_OF_A_SHARE = ("shard", "num_shards", "merge")
"""Keys of the algorithm in which the shares of one whole, and their merge, differ."""


def finish(
    config: RunConfig, run: RunFolder, outcome: Outcome, *, of_whole: Counter[str], of_share: Counter[str]
) -> None:
    """Ranked sets, pairs and card, from the records in the run folder.

    Args:
        config: the run.
        run: its folder, with requests, responses and, where they were judged, verdicts.
        outcome: gets the counts.
        of_whole: reason -> requests that were left out before the shares were made.
        of_share: the same for requests of this share (or of all shares, when they are merged).
    """
    algorithm = config.algorithm
    assert isinstance(algorithm, SynthesisConfig)
    account = Account(left_out=+(of_whole + of_share))
    sets = ranked_sets(
        rows_of(run.path / REQUESTS),
        rows_of(run.path / RESPONSES),
        rows_of(run.path / VERDICTS),
        keep=algorithm.filter,
        account=account,
    )
    conversations = any(not isinstance(row["prompt"], str) for row in rows_of(run.path / REQUESTS))
    written = export(sets, run.path, strategy=algorithm.pairs, account=account, conversations=conversations)
    counts = account.record()
    if not account.sets:
        raise ConfigError(f"dataset={config.dataset.name}: no set is left ({_counted(counts['left_out'])})")
    settings = _settings(config)
    write_text(
        run.path / "README.md",
        card(kind=config.dataset.kind, settings=settings, counts=counts, strategy=algorithm.pairs),
    )
    outcome.extra["synthesis"] = counts
    outcome.extra["left_out_of_whole"], outcome.extra["left_out_of_share"] = dict(of_whole), dict(of_share)
    outcome.artifacts |= {**written, "responses": RESPONSES, "card": "README.md"}
    _say_counts(counts)


def _settings(config: RunConfig) -> dict[str, Any]:
    """What the sets were made with; no places, no keys, no shares."""
    groups = {name: asdict(getattr(config, name)) for name in ("model", "dataset", "algorithm", "generator", "judge")}
    for key in ("shard", "num_shards", "merge"):
        del groups["algorithm"][key]
    if groups["algorithm"]["filter"] == "none":
        del groups["judge"]
    inputs = {key: value for key, value in input_fingerprints(config).items() if not key.startswith("algorithm.merge")}
    for group in groups.values():
        for key in _PLACES & set(group):
            del group[key]
    return {**groups, "seed": config.seed, "inputs": inputs}


_PLACES = {"path", "adapter", "control", "held_out", "base_url", "api_key_env", "batch_size", "workers"}
"""Keys that say where something lies, of no use to a reader elsewhere; `inputs` has the hashes."""


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def _say_counts(counts: Mapping[str, Any]) -> None:
    made = ", ".join(f"{count} {kind} sets ({counts['pairs'][kind]} pairs)" for kind, count in counts["sets"].items())
    say(f"made: {made or 'nothing'}")
    for title in ("left_out", "dropped"):
        for reason, count in counts[title].items():
            say(f"{title.replace('_', ' ')}: {count} {reason}")
    say(f"lengths: {counts['length_bias']['note']}")


def merge(config: RunConfig, run: RunFolder, outcome: Outcome) -> None:
    """Joins the shares of one whole; the result is that of a single run over all of it, to the byte.

    Raises:
        ConfigError: if a folder is no finished share, two differ in more than their share, or one is missing.
    """
    algorithm = config.algorithm
    assert isinstance(algorithm, SynthesisConfig)
    folders = [Path(folder) for folder in algorithm.merge]
    results = [_share_of(folder) for folder in folders]
    _refuse_mixtures(config, folders)
    with run.stage("merge"):
        for name in (REQUESTS, RESPONSES, VERDICTS):
            files = [folder / name for folder in folders if (folder / name).exists()]
            if files:
                write_lines(run.path / name, _merged(files))
    for name in ("model", "revision", "dataset"):
        outcome.inputs[name] = results[0]["inputs"].get(name)
    of_share: Counter[str] = sum((Counter(result["left_out_of_share"]) for result in results), Counter())
    with run.stage("export"):
        finish(config, run, outcome, of_whole=Counter(results[0]["left_out_of_whole"]), of_share=of_share)


def _share_of(folder: Path) -> dict[str, Any]:
    result = finished_result(folder)
    if result is None or result.algorithm != "synthesis" or "left_out_of_share" not in result.extra:
        raise ConfigError(f"algorithm.merge={folder}: holds no finished run of algorithm=synthesis")
    return result.to_json()


def _refuse_mixtures(config: RunConfig, folders: Sequence[Path]) -> None:
    """All shares must be of the run that the merge's own settings describe, and each be there once."""
    plain = [json.loads((folder / "config.json").read_text()) for folder in folders]
    wanted = _whole(json.loads(json.dumps(asdict(config))))
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


def _whole(plain: dict[str, Any]) -> dict[str, Any]:
    """What all shares of one whole have in common."""
    kept = {name: plain[name] for name in ("seed", "model", "dataset", "generator", "judge")}
    kept["algorithm"] = {key: value for key, value in plain["algorithm"].items() if key not in _OF_A_SHARE}
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


def after_sweep(jobs: Sequence[tuple[Plan[Any], Path]]) -> None:
    """Merges the shares of a sweep where it made all of one whole."""
    shares = list(dict.fromkeys(folder for _, folder in jobs))
    config = jobs[0][0].config
    algorithm = config.algorithm
    assert isinstance(algorithm, SynthesisConfig)
    if algorithm.num_shards < 2 or len(shares) != algorithm.num_shards or not all(map(finished_result, shares)):
        return
    whole = dataclasses.replace(algorithm, shard=0, num_shards=1, merge=[str(folder) for folder in shares])
    joined = plan_of(dataclasses.replace(config, algorithm=whole))
    quiet_libraries()
    try:
        run_in_folder(joined, joined.folder)
    except ConfigError as error:
        say(f"no merge: {error}")
    else:
        say(f"merged: {joined.folder}")
