"""Synthesis from end to end: the files, kills, shards, the judge's filter, and training on what comes out."""

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from alignlab.cli import main
from alignlab.config.hydra.compose import load_run_config
from alignlab.config.identity import run_folder as folder_of
from alignlab.course_correction.phrases import TOY_AFFIRMATIVE_PREFIXES
from alignlab.data.worlds import toy
from alignlab.errors import ConfigError
from alignlab.prerequisites.policy import Policy
from alignlab.synthesis.shards import _refuse_other_inputs
from support.commands import SMALL as SMALL_TOY
from support.commands import alignlab, assert_refused, result, run_folder, run_here

SMALL = ["model.pretraining.rows=640", "dataset.requests=1", "dataset.max_rows=12"]
FILES = (
    *(f"{name}.jsonl" for name in ("requests", "responses", "ranked", "pairs", "control_pairs")),
    *("pairs.parquet", "control_pairs.parquet", "README.md"),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where this module's runs and cache lie."""
    return tmp_path_factory.mktemp("synthesis")


def run(root, *overrides, algorithm="synthesis"):
    """The exit code of a command on the small settings."""
    return run_here(root, [f"algorithm={algorithm}", *SMALL], *overrides)


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def contents(folder, names=FILES):
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def whole(root):
    folder = root / "runs" / "whole"
    assert run(root, f"hydra.run.dir={folder}") == 0
    return folder


def test_exactly_fifteen_pairs_a_request(whole):
    pairs = rows(whole / "pairs.jsonl")
    assert set(Counter(pair["request_id"] for pair in pairs).values()) == {15}
    assert len({pair["id"] for pair in pairs}) == len(pairs) == 12 * 15
    assert set(Counter(pair["request_id"] for pair in rows(whole / "control_pairs.jsonl")).values()) == {5}


def test_every_response_says_where_it_comes_from(whole):
    responses = rows(whole / "responses.jsonl")
    assert [row["id"] for row in responses] == sorted({f"{row['request_id']}/{row['rank']}" for row in responses})
    author = {(row["seed"], row["generator"], row["revision"]) for row in responses}
    assert author == {(0, result(whole)["inputs"]["model"], None)}
    for row in responses:
        if row["role"] == "corrected":
            assert row["affirmative_prefix"] == row["correction_phrase"] == "toy-training"
            assert row["cut_tokens"] > 0
            assert row["written"] == "" or row["response"].endswith(row["written"].strip())
    requests = {row["id"]: row["prompt"] for row in rows(whole / "requests.jsonl")}
    assert {row["request_id"] for row in responses} == set(requests)


def test_the_shared_beginning_cancels_and_nothing_of_the_evaluation_is_in_it(whole):
    held_out = set(toy.prompts("test"))
    for row in rows(whole / "ranked.jsonl"):
        assert row["prompt"] not in held_out
        colour = toy.parse_prompt(row["prompt"]).colour
        complying = [text for text, prefix in zip(row["responses"], row["affirmative_prefix"], strict=True) if prefix]
        assert len(complying) == (5 if row["kind"] == "harmful" else 4)
        assert all(text.startswith(TOY_AFFIRMATIVE_PREFIXES["training"].format(colour=colour)) for text in complying)
        measured_with = TOY_AFFIRMATIVE_PREFIXES["evaluation"].format(colour=colour)
        assert not any(text.startswith(measured_with) for text in complying)


def test_a_policys_own_answer_is_drawn_from_it_and_all_else_is_the_generators(whole):
    """Greedy settings write the same after the same start; the own answers to one prompt differ all the same."""
    sets = rows(whole / "ranked.jsonl")
    for row in sets:
        learnt = [role in ("safe", "helpful") for role in row["role"]]
        assert learnt == [start == 0 for start in row["correction_start"]]
    own = [row["responses"][0] for row in sets if row["kind"] == "benign"]
    refused = [row["responses"][-1].split() for row in sets if row["kind"] == "benign"]
    assert len(set(own)) > len(own) / 2
    assert len({text.split()[0] for text in own}) > 1, "greedy, all would begin alike"
    assert len({tuple(words[:5]) for words in refused}) == 1, "control"


def test_the_toys_corrections_go_on_as_its_grammar_refuses(whole):
    for row in rows(whole / "ranked.jsonl"):
        for role, text, start in zip(row["role"], row["responses"], row["correction_start"], strict=True):
            if row["kind"] == "harmful" and role in ("safe", "corrected"):
                assert toy.is_well_formed(row["prompt"], text[start:])


def test_the_same_whatever_the_batch_and_the_order(root, whole, monkeypatch):
    rng, real = random.Random(0), Policy.generate

    def shuffled(self, requests, settings, on_done, *, seed, label):
        requests, held = list(requests), []
        rng.shuffle(requests)
        real(self, requests, settings, lambda *done: held.append(done), seed=seed, label=label)
        rng.shuffle(held)
        for done in held:
            on_done(*done)

    monkeypatch.setattr(Policy, "generate", shuffled)
    folder = root / "runs" / "shuffled"
    assert run(root, "generator.batch_size=5", f"hydra.run.dir={folder}") == 0
    assert contents(folder) == contents(whole)
    assert run(root, "dataset.seed=1", f"hydra.run.dir={root}/runs/other") == 0
    assert contents(root / "runs" / "other") != contents(whole)  # control


def test_shards_of_a_sweep_merge_into_the_whole(root, whole, capsys):
    assert run(root, "-m", "algorithm.num_shards=3", "algorithm.shard=0,1,2") == 0
    assert "merged:" in capsys.readouterr().out
    found = {file: load_run_config(file.parent / "config.json") for file in root.glob("runs/synthesis/**/result.json")}
    results = [file for file, given in found.items() if 3 in (given.algorithm.num_shards, len(given.algorithm.merge))]
    merged = [file.parent for file in results if found[file].algorithm.merge]
    (folder,) = merged
    assert contents(folder) == contents(whole)
    shards = [file.parent for file in results if file.parent != folder]
    parts = [{row["id"] for row in rows(shard / "requests.jsonl")} for shard in shards]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 24
    assert result(folder)["synthesis"] == result(whole)["synthesis"]
    assert run(root, f"algorithm.merge=[{shards[0]},{shards[1]}]") == 2
    assert "must name every shard once: missing" in capsys.readouterr().err
    assert run(root, f"algorithm.merge=[{shards[0]},{shards[1]},{shards[2]},{shards[2]}]") == 2
    assert "twice" in capsys.readouterr().err
    assert run(root, "seed=1", f"algorithm.merge=[{','.join(map(str, shards))}]") == 2
    assert "other settings of dataset, seed" in capsys.readouterr().err


def test_shards_of_files_that_changed_between_them_are_refused():
    folders, same = [Path("one"), Path("two")], {"inputs": {"model": "a", "dataset": "d"}}
    _refuse_other_inputs(folders, [same, same])
    with pytest.raises(ConfigError, match=r"algorithm\.merge=two: read another dataset than one"):
        _refuse_other_inputs(folders, [same, {"inputs": {"model": "a", "dataset": "changed"}}])


def test_shards_of_two_seeds_merge_into_two_wholes(root, capsys):
    assert run(root, "-m", "seed=0,1", "algorithm.num_shards=2", "algorithm.shard=0,1") == 0
    assert capsys.readouterr().out.count("merged:") == 2


def test_the_judges_filter_drops_and_counts(root, whole):
    folder = root / "runs" / "filtered"
    options = ["algorithm.filter=ranks", "judge.phrases=[mind the]", f"hydra.run.dir={folder}"]
    assert run(root, *options) == 0
    account = result(folder)["synthesis"]
    said = {
        row["id"]: "mind the" in row["response"][row["correction_start"] or 0 :]
        for row in rows(whole / "responses.jsonl")
    }
    judged = {row["id"]: row["corrected"] for row in rows(folder / "verdicts.jsonl")}
    assert len(judged) == 4 * 12
    assert judged == {name: said[name] for name in judged}
    assert sum(account["dropped"].values()) == sum(not corrected for corrected in judged.values()) > 0
    kept = {f"{row['request_id']}/{rank}" for row in rows(folder / "ranked.jsonl") for rank in row["rank"]}
    assert not {name for name, corrected in judged.items() if not corrected} & kept
    assert result(folder)["judge"]["items"] == len(judged)


def test_a_filter_that_leaves_nothing_is_said(root, capsys):
    options = ["algorithm.filter=requests", "judge.phrases=[never said]", f"hydra.run.dir={root}/runs/nothing"]
    assert run(root, *options, "dataset.max_rows=3", f"algorithm.control={_control(root, 0)}") == 2
    assert "no set is left" in capsys.readouterr().err


def test_sets_without_harmless_ones_are_said(root, whole, capsys):
    folder = root / "runs" / "harmful-alone"
    options = ["dataset.max_rows=3", f"algorithm.control={_control(root, 1)}", f"hydra.run.dir={folder}"]
    assert run(root, *options) == 0
    assert "name harmless requests with algorithm.control=FILE" in capsys.readouterr().out
    assert {row["kind"] for row in rows(folder / "ranked.jsonl")} == {"harmful"}
    assert "no harmless sets" not in (whole / "job.log").read_text(), "control"


def _control(root, number):
    """A control file with one harmless request that is too short to be cut."""
    file = root / f"control{number}.jsonl"
    file.write_text(json.dumps({"prompt": toy.prompts("train")[-1], "response": "now"}) + "\n")
    return file


def test_prompts_of_evaluation_sets_are_left_out_and_counted(root, whole):
    prompts = sorted({row["prompt"] for row in rows(whole / "requests.jsonl") if row["kind"] == "harmful"})
    file = root / "evaluation.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt.upper()}) + "\n" for prompt in prompts[:5]))
    folder = root / "runs" / "held_out"
    assert run(root, f"algorithm.held_out=[{file}]", f"hydra.run.dir={folder}") == 0
    assert result(folder)["left_out_of_whole"]["like a held-out prompt"] == 5
    left = {row["prompt"] for row in rows(folder / "requests.jsonl") if row["kind"] == "harmful"}
    assert left == set(prompts[5:])


def test_force_begins_anew(root, whole):
    folder = root / "runs" / "forced"
    shutil.copytree(whole, folder)
    assert run(root, "dataset.max_rows=6", "force=true", f"hydra.run.dir={folder}") == 0
    assert len({row["request_id"] for row in rows(folder / "pairs.jsonl")}) == 6


@pytest.mark.parametrize("strategy", ["all", "principle_1"])
def test_the_sets_are_trained_on(root, whole, strategy):
    folder = root / "runs" / f"trained-{strategy}"
    options = [f"dataset.path={whole}", f"dataset.pairs={strategy}", "trainer.max_steps=2", "dataset.max_rows=null"]
    small = [option for option in options if option] + [f"hydra.run.dir={folder}", "dataset=c2_syn"]
    values = ["algorithm=dpo", SMALL[0], *small, f"paths.runs={root}/runs", f"paths.cache={root}/cache"]
    assert main(values) == 0
    assert (folder / "adapter" / "adapter_model.safetensors").exists()
    assert result(folder)["inputs"]["model"] in result(whole)["inputs"]["model"], "the student learns its own words"
    config = load_run_config(folder / "config.json")
    assert (config.algorithm.sft_weight, config.dataset.pairs) == (64.0, strategy)
    assert config.trainer.num_train_epochs == 3


def test_tiny_learns_no_words_that_it_does_not_know(root, whole, capsys, tmp_path):
    ranked = rows(whole / "ranked.jsonl")
    ranked[0]["responses"][0] = "something else"
    (tmp_path / "ranked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ranked))
    values = ["algorithm=dpo", "dataset=c2_syn", f"dataset.path={tmp_path}", f"paths.runs={tmp_path}/runs"]
    assert main(values) == 2
    assert "model=tiny: knows the toy's words only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("algorithm.pairs=best", "best_worst"),
        ("algorithm.cuts=claus", "clauses"),
        ("algorithm.safe=dat", "data"),
        ("algorithm.filter=request", "requests"),
        ("algorithm.near_duplicates=0", "algorithm.near_duplicates=0.0: must be a share in (0, 1]"),
        ("algorithm.num_shards=0", "algorithm.num_shards=0: must be > 0"),
        ("algorithm.shard=1", "algorithm.shard=1: must be in 0..0"),
        ("algorithm.adapter=nowhere", "algorithm.adapter=nowhere"),
        ("algorithm.control=nowhere.jsonl", "algorithm.control=nowhere.jsonl: no such file"),
        ("algorithm.held_out=[nowhere.jsonl]", "algorithm.held_out=nowhere.jsonl"),
        ("algorithm.merge=[nowhere]", "algorithm.merge=nowhere: holds no finished run"),
    ],
)
def test_what_cannot_be_is_refused_before_a_run(tmp_path, capsys, override, said):
    assert_refused(run(tmp_path, override), capsys, said)
    assert not (tmp_path / "runs").exists()


def test_a_run_reads_back(whole):
    config = load_run_config(whole / "config.json")
    assert config.algorithm.near_duplicates == 0.9
    assert folder_of(config).parts[0] == "synthesis"


OWN = tuple(setting for setting in SMALL_TOY if not setting.startswith("algorithm."))


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    """Killed at its first response, halfway, before the end, and while it writes the pairs."""
    arguments = ["algorithm=synthesis", "dataset.requests=1", "dataset.max_rows=12", "model.pretraining.rows=640"]
    folders = [tmp_path / name for name in ("whole", "broken")]
    for folder in folders:
        folder.mkdir()
    assert alignlab(*arguments, cwd=folders[0], small=OWN).returncode == 0
    add, write = "alignlab.io.records:Records.add", "alignlab.synthesis.export:_write"
    for point in ((add, 1, "SIGKILL"), (add, 60, "SIGKILL"), (add, 60, "SIGKILL"), (write, 150, "SIGKILL")):
        assert alignlab(*arguments, cwd=folders[1], breaks=point, small=OWN).returncode == -9, point
    ended = alignlab(*arguments, cwd=folders[1], small=OWN)
    assert ended.returncode == 0
    assert "are known from before" in ended.stdout
    runs = [run_folder(folder, "synthesis") for folder in folders]
    assert contents(runs[0]) == contents(runs[1])
    assert not list(runs[1].glob(".*pairs*"))
