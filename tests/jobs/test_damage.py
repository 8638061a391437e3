"""Every kind of file that is read later, damaged in every way: made again to the same bytes, or refused by name."""

import dataclasses
import functools
import itertools
import json
import types

import pytest
import torch
from safetensors.torch import load, save_file

from alignlab.config.fingerprints import check_recorded
from alignlab.config.hydra.compose import composing, read_command, register, run_config
from alignlab.config.plan import plan_of
from alignlab.data.worlds import toy
from alignlab.engine.cache.scores import ScoreCache
from alignlab.engine.cache.states import StateCache
from alignlab.errors import ConfigError
from alignlab.front.collect import collect
from alignlab.io.atomic import write_json, write_jsonl
from alignlab.io.records import checked_lines, renewable
from alignlab.judges.base import Answer
from alignlab.judges.memo import Memo
from alignlab.judges.store import AnswerStore
from alignlab.models.cards import AdapterCard, save_card
from alignlab.models.prompts import Encoded
from alignlab.models.saved_adapter import checked_adapter
from alignlab.prerequisites import scratch, toy_pairs
from alignlab.rewards.joined import JoinedReward
from alignlab.rewards.normalise import Statistics, read_statistics, write_statistics
from alignlab.runs import runner
from alignlab.runs.progress import say
from support.commands import alignlab, means, run_folder
from support.damage import WAYS, one_bit

register()
ROWS = [Encoded([1], [number]) for number in range(250)]
WEIGHTS = torch.arange(4096.0)
SETTINGS = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "target_modules": ["q_proj"], "r": 4, "lora_alpha": 8}
CARD = AdapterCard("safer", 0.1, "base", "T: {raw_prompt}", "toy", {"safer": 1.0})


@functools.cache
def composed(*overrides):
    with composing():
        (job,) = read_command("config", ["w=0.3", *overrides], multirun=False).jobs()
        return run_config(job)


def config(root, *overrides):
    """A composed config, which takes a second, with paths of its own."""
    paths = dataclasses.replace(composed().paths, runs=f"{root}/runs", cache=f"{root}/cache")
    return dataclasses.replace(composed(*overrides), paths=paths)


def evaluation(root, adapter):
    known = config(root, "algorithm=evaluate")
    return dataclasses.replace(known, algorithm=dataclasses.replace(known.algorithm, adapter=str(adapter)))


def save_lora(folder):
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": WEIGHTS}, _weights(folder))
    write_json(folder / "adapter_config.json", SETTINGS)
    save_card(folder, CARD)


def _weights(folder):
    return folder / "adapter_model.safetensors"


def job(plan, run, outcome):
    """A job that takes no time and leaves what a policy's training leaves."""
    save_lora(run.path / "adapter")
    write_jsonl(run.path / "generations.jsonl", [{"id": str(n), "prompt": "p", "response": "r"} for n in range(400)])
    write_jsonl(run.path / "scores.jsonl", [{"id": str(n), "helpful": n / 7, "safe": n} for n in range(400)])
    write_statistics(run.path, {"safer": _statistics()})
    outcome.artifacts |= {"adapter": "adapter", "generations": "generations.jsonl", "scores": "scores.jsonl"}
    outcome.axes |= {"better": "helpful", "safer": "safe"}
    outcome.metrics |= {name: {"mean": 0.25, "ci95": [0.125, 0.375], "n": 400} for name in ("helpful", "safe")}


def _statistics():
    return Statistics(**{item.name: "id" if item.name == "id" else 3 for item in dataclasses.fields(Statistics)})


@pytest.fixture
def quick(monkeypatch):
    """Jobs, trainings and samplings that take no time."""
    monkeypatch.setattr(runner, "load_job", lambda name: types.SimpleNamespace(run=job))
    base = types.SimpleNamespace(id="base")
    rows = [{"prompt": "p", "response_0": str(n), "response_1": "b"} for n in range(400)]
    monkeypatch.setattr(toy_pairs, "_draw_pairs", lambda dataset, base: rows)
    texts = lambda base, prompts, samples, *_: [["send the report now"] * samples for _ in prompts]  # noqa: E731
    monkeypatch.setattr(toy_pairs, "_sample_texts", texts)

    def train(source, folder, made_of):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "tokenizer.json"):
            write_json(folder / name, {"a": list(range(900))})
        (folder / "model.safetensors").write_bytes(WEIGHTS.numpy().tobytes())
        write_json(folder / "alignlab.json", {**made_of, "files": scratch.file_hashes(folder)})

    monkeypatch.setattr(scratch, "_train", train)
    return base


def finished(root, base):
    runner.make_run(plan_of(config(root)))


def reference(root, base):
    scratch.scratch_folder(plan_of(config(root)).model.scratch)


def pairs(root, base):
    toy_pairs.toy_pairs_file(plan_of(config(root)).rows.toy, base, root / "cache")


def exact(root, base):
    prompts = toy.prompts("test")[:1]
    toy_pairs.reference_samples(plan_of(config(root)).rows.toy, base, prompts, cache=root / "cache")


def scores(root, base):
    ScoreCache(root / "scores").scores("one", ROWS, lambda rows: torch.arange(len(rows)).double(), name="x")


def states(root, base):
    StateCache(root / "states").states("one", ROWS, lambda rows: torch.arange(3.0 * len(rows)).reshape(-1, 3))


def continuations(root, base):
    ids = [str(number) for number in range(300)]
    with renewable(root / "kept" / "generations.jsonl", ids, made_for={"policy": "base"}, say=say) as records:
        for name in records.missing():
            records.add({"id": name, "text": "word"})
        records.finish()


def verdicts(root, base):
    store = AnswerStore(root / "verdicts")
    for name in map(str, range(99)):
        if store.get(name) is None:
            store.put(name, Answer(True, "reason", 3))


def named_adapter(root, base):
    """An adapter that a config names, where it lies in no run's folder."""
    folder = root / "mine"
    if not folder.exists():
        save_lora(folder)
    checked_adapter("algorithm.adapter", folder, template=CARD.prompt_template)


def named_in_run(root, base):
    """An adapter that a config names in the folder of its run."""
    plan = plan_of(config(root))
    if not plan.folder.exists():
        runner.make_run(plan)
    adapter = plan.folder / "adapter"
    if adapter.is_dir():
        check_recorded(plan_of(evaluation(root, adapter)).files)


def on_a_front(root, base):
    """A run that a front collects."""
    plan = plan_of(config(root))
    if not plan.folder.exists():
        runner.make_run(plan)
    found = collect([plan.folder])
    if found.failures:
        raise ConfigError(f"{found.failures[0].status} {found.failures[0].error}")


def statistics(root, base):
    """What rewards were normalised by, in a run that is not finished."""
    if not (root / "rewards.json").exists():
        write_statistics(root, {"safer": _statistics()})
    read_statistics(root)


def memo(root, base):
    """A judge's own notes in a run that is not finished."""
    kept = Memo(root, "judge")
    if kept.get("items", None) is None:
        kept.keep("items", list(range(300)))


def members(root, base):
    """What a joined scorer's members were brought into one unit by, in a run that is not finished."""
    made = {"score_encoded": lambda rows: torch.arange(len(rows)).double(), "release": lambda: None}
    one = types.SimpleNamespace(id="one", **made)
    JoinedReward("better", "scorers.better", {"one": one}, "mean").scaled(ROWS, root)


RUN = "runs/**/{}"
KINDS = [
    (finished, "result.json", RUN),
    (finished, "config.json", RUN),
    (finished, "adapter/adapter_model.safetensors", RUN),
    (finished, "adapter/adapter_config.json", RUN),
    (finished, "adapter/alignlab.json", RUN),
    (finished, "generations.jsonl", RUN),
    (finished, "scores.jsonl", RUN),
    (finished, "rewards.json", RUN),
    (reference, "model.safetensors", "cache/references/*/{}"),
    (reference, "config.json", "cache/references/*/{}"),
    (reference, "tokenizer.json", "cache/references/*/{}"),
    (reference, "alignlab.json", "cache/references/*/{}"),
    (pairs, "pairs-*.jsonl", "cache/toy/{}"),
    (pairs, "pairs-*.jsonl.sha256", "cache/toy/{}"),
    (exact, "exact-*.npy", "cache/toy/{}"),
    (scores, "*.parquet", "scores/{}"),
    (states, "*.safetensors", "states/*/{}"),
    (continuations, "generations.jsonl", "kept/{}"),
    (continuations, "generations.manifest.json", "kept/records/{}"),
    (verdicts, "*.jsonl", "verdicts/{}"),
    (named_adapter, "adapter_model.safetensors", "mine/{}"),
    (named_adapter, "adapter_config.json", "mine/{}"),
    (named_adapter, "alignlab.json", "mine/{}"),
    (named_in_run, "adapter/adapter_model.safetensors", RUN),
    (named_in_run, "adapter/alignlab.json", RUN),
    (on_a_front, "result.json", RUN),
    (on_a_front, "generations.jsonl", RUN),
    (on_a_front, "scores.jsonl", RUN),
    (statistics, "rewards.json", "{}"),
    (members, "members.json", "{}"),
    (memo, "judge.json", "records/{}"),
]
"""(what takes a file up, its name, where it lies)."""
NO_LONGER_ALIGNLABS = {("named_adapter", "alignlab.json", "missing")}
"""Without its card and outside of a run an adapter is one made elsewhere, which alignlab takes."""


def outcome_of(take_up, name, pattern, damage, root, base):
    """'healed', 'refused' or 'unnoticed', of one file damaged in one way."""
    take_up(root, base)
    (file,) = root.glob(pattern.format(name))
    before = file.read_bytes()
    damage(file)
    try:
        take_up(root, base)
    except ConfigError as error:
        named = name.replace("*", "") in str(error) or file.name in str(error)
        return "refused" if named and "Traceback" not in str(error) else f"refused without a name: {error}"
    found = [one.read_bytes() for one in root.glob(pattern.format(name))]
    return "healed" if _same(before, found, file) else "unnoticed"


def _same(before, found, file):
    """The same bytes; of a store whose files have random names, or tables that time stamps, the same records."""
    if file.parent.name == "verdicts":
        known = {row["text"] for one in found for row in checked_lines(one) if row is not None}
        return known == set(map(str, range(99)))
    if "states" in file.parts:  # safetensors writes metadata in any order
        (one,) = found
        return all(tensor.equal(load(before)[name]) for name, tensor in load(one).items())
    if file.name == "result.json":
        kept = [json.loads(one) for one in (before, *found)]
        return all(one["metrics"] == kept[0]["metrics"] and one["files"] == kept[0]["files"] for one in kept)
    return found == [before]


@pytest.mark.parametrize(
    ("kind", "damage"),
    [*itertools.product(KINDS, WAYS)],
    ids=lambda value: value.__name__ if callable(value) else f"{value[0].__name__} {value[1]}",
)
def test_no_damage_goes_unnoticed(quick, tmp_path, kind, damage):
    seen = outcome_of(*kind, damage, tmp_path, quick)
    if (kind[0].__name__, kind[1], damage.__name__) in NO_LONGER_ALIGNLABS:
        assert seen == "unnoticed"
    else:
        assert seen in ("healed", "refused"), seen


@pytest.mark.parametrize(
    ("kind", "blinded"),
    [
        (KINDS[2], "alignlab.runs.result.changed_files"),
        (KINDS[8], "alignlab.models.cards.changed_files"),
        (KINDS[20], "alignlab.models.cards.changed_files"),
    ],
)
def test_without_the_hashes_it_would(quick, tmp_path, monkeypatch, kind, blinded):
    """Control: the matrix sees damage that nobody notices."""
    monkeypatch.setattr(blinded, lambda folder, files: iter(()))
    assert outcome_of(*kind, one_bit, tmp_path, quick) == "unnoticed"


def test_one_command_heals_a_run_and_all_that_it_stands_on(whole, copied):
    """The reference, the pairs, the exact front, a reward that is found, and the policy itself, one bit each."""
    damaged = [
        *copied.glob("cache/references/*/model.safetensors"),
        *copied.glob("cache/toy/pairs-*.jsonl"),
        *copied.glob("cache/toy/exact-*.npy"),
        *copied.glob("runs/*/**/adapter/adapter_model.safetensors"),
    ]
    assert len(damaged) == 5
    for file in damaged:
        one_bit(file)
    ended = alignlab("w=0.5", cwd=copied)
    assert ended.returncode == 0, ended.stderr
    for file in damaged:
        assert file.read_bytes() == (whole / file.relative_to(copied)).read_bytes(), file.name
    assert means(run_folder(copied, "modpo")) == means(run_folder(whole, "modpo"))
    said = [line for line in ended.stdout.replace("\n  ", " ").splitlines() if "made again" in line]
    assert len(said) == 5
