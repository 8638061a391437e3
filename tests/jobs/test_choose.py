"""algorithm=choose by the real command, over hand-written runs; a conditioned adapter's is in test_conditioned.py."""

import csv
import json

import pytest

from alignlab.models.cards import AdapterCard, save_card
from support.commands import run_here
from support.damage import one_bit
from support.fronts import write_run

WS = (0.1, 0.3, 0.5, 0.7, 0.9)


def with_adapter(folder, w):
    adapter = folder / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    (adapter / "adapter_model.safetensors").write_bytes(f"weights of {w}".encode())
    card = AdapterCard("better", 1.0, "base", None, "toy", {"better": w, "safer": round(1 - w, 9)}, seed=0)
    save_card(adapter, card)


@pytest.fixture
def root(tmp_path):
    """Runs whose means of safe are 0.9, 0.7, ... 0.1, and of helpful 0.1, ... 0.9; the prompts differ by up to .2."""
    for w in WS:
        samples = [
            (f"prompt {p}", "x", {"helpful": w + (p % 5 - 2) / 20, "safe": 1 - w + (p % 3 - 1) / 10}) for p in range(30)
        ]
        with_adapter(write_run(tmp_path / "runs" / "modpo" / f"w={w}", w=w, samples=samples), w)
    return tmp_path


def chosen(root, *overrides):
    runs = f"algorithm.runs=[{root / 'runs' / 'modpo'}]"
    assert run_here(root, [], "algorithm=choose", runs, *overrides) == 0
    files = sorted((root / "runs" / "choose").rglob("choice.json"), key=lambda file: file.stat().st_mtime_ns)
    return files[-1].parent


def test_it_writes_the_adapter_with_its_card(root, capsys):
    folder = chosen(root, "target.safer=0.4")
    found = json.loads((folder / "choice.json").read_text())
    assert found["weights"] == {"better": 0.5, "safer": 0.5}
    assert (found["candidates"], found["rivals"], found["interpolated"]) == (5, 0, False)
    assert found["chance"] > 0.99
    assert sorted(map(len, found["split"].values())) == [15, 15]
    source = root / "runs" / "modpo" / "w=0.5" / "adapter"
    assert {file.name: file.read_bytes() for file in (folder / "adapter").iterdir()} == {
        file.name: file.read_bytes() for file in source.iterdir()
    }
    record = json.loads((folder / "result.json").read_text())
    assert (record["status"], record["w"], record["axes"]) == ("done", 0.5, {})
    assert set(record["metrics"]) == {"helpful_validation", "safe_validation", "helpful_test", "safe_test"}
    said = capsys.readouterr().out
    assert "chosen of 5: modpo w=0.5 seed=0" in said
    assert "chance that its true means reach the target: 100%" in said


def test_a_damaged_adapter_is_not_handed_on(root, capfd):
    one_bit(root / "runs" / "modpo" / "w=0.5" / "adapter" / "adapter_model.safetensors")
    runs = f"algorithm.runs=[{root / 'runs' / 'modpo'}]"
    code = run_here(root, [], "algorithm=choose", runs, "target.safer=0.4")
    error = capfd.readouterr().err.splitlines()[0]
    assert code == 2
    assert "w=0.5/adapter: adapter_model.safetensors was changed or damaged since it was saved" in error
    assert not list((root / "runs" / "choose").rglob("adapter"))


def test_two_targets_are_both_met(root):
    assert json.loads((chosen(root, "target.safer=0.25", "target.better=0.65") / "choice.json").read_text())[
        "weights"
    ] == {"better": 0.7, "safer": 0.3}


def test_another_target_is_another_folder_and_the_same_one_is_chosen_again(root):
    first, other = chosen(root, "target.safer=0.4"), chosen(root, "target.safer=0.6")
    assert first != other
    (first / "choice.json").unlink()
    assert chosen(root, "target.safer=0.4") == first


def test_without_named_runs_the_points_are_those_of_the_front(tmp_path):
    """Trained policies have accuracies; what they say was scored by evaluations of their adapters."""
    runs, accuracies = tmp_path / "runs", {"better": "better_accuracy", "safer": "safer_accuracy"}
    ranked = [(f"prompt {p}", "x", dict.fromkeys(accuracies.values(), p % 2)) for p in range(30)]
    inputs = {"scorers": "one", "decoding": "d", "prompts": "p"}
    for w in WS:
        home = write_run(runs / "modpo/tiny/toy" / f"w={w}", w=w, samples=ranked, axes=accuracies)
        with_adapter(home, w)
        samples = [(f"prompt {p}", "x", {"helpful": w + p % 5 / 20, "safe": 1 - w + p % 3 / 10}) for p in range(30)]
        policy = {"algorithm": "modpo", "seed": 0, "adapter": f"../../../../modpo/tiny/toy/w={w}/adapter"}
        folder = runs / "evaluate/tiny/toy" / f"w={w}"
        write_run(folder, w=w, samples=samples, algorithm="evaluate", policy=policy, inputs=inputs, artifacts={})
    assert run_here(tmp_path, [], "algorithm=choose", "target.safer=0.4") == 0
    (file,) = (runs / "choose").rglob("choice.json")
    found = json.loads(file.read_text())
    assert set(found["validation"]["means"]) == {"helpful", "safe"}, "by what they say, as algorithm=front has them"
    assert (found["weights"]["better"], found["candidates"]) == (0.7, 5)


def test_a_fronts_folder_stands_for_its_runs(root):
    front = root / "front"
    front.mkdir()
    with (front / "front.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["folder", "status"])
        rows.writerows([f"../runs/modpo/w={w}", "done"] for w in (0.1, 0.9))
    runs = f"algorithm.runs=[{front}]"
    assert run_here(root, [], "algorithm=choose", runs, "target.safer=0.05") == 0
    (file,) = (root / "runs" / "choose").rglob("choice.json")
    found = json.loads(file.read_text())
    assert (found["candidates"], found["weights"]["better"]) == (2, 0.9)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "target={}: must say what to choose by, e.g. target.safer=-0.5"),
        (["target.safe=1"], "target.safe=1: no such objective; did you mean safer?"),
        (["target.safer=2"], "target.safer=2: no policy meets it on the 15 prompts of the choice; the nearest is"),
        (["target.safer=0.93", "algorithm.min_chance=0.9"], "[0.899, 0.981]; its means do, with a chance of 70%"),
        (["target.safer=0", "algorithm.min_chance=1"], "algorithm.min_chance=1.0: must be in (0, 1)"),
        (["target.safer=0", "algorithm.runs=[nowhere]"], "algorithm.runs=nowhere: no such folder"),
        (["target.safer=0", "algorithm.runs=[odd]"], "odd/front.csv: a row names no folder of a run; write the front"),
    ],
)  # fmt: skip
def test_refusals(root, capsys, monkeypatch, overrides, said):
    monkeypatch.chdir(root)
    (root / "odd").mkdir()
    (root / "odd" / "front.csv").write_text("a,b\n1,2\n")
    runs = f"algorithm.runs=[{root / 'runs' / 'modpo'}]"
    assert run_here(root, [], "algorithm=choose", runs, *overrides) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("algorithm", ["choose", "front"])
def test_a_folder_without_runs_is_refused_before_the_start(root, capsys, algorithm):
    (root / "empty").mkdir()
    given = (f"algorithm={algorithm}", "target.safer=0", f"algorithm.runs=[{root}/empty]")
    assert run_here(root, [], *given) == 2
    error = capsys.readouterr().err
    assert error == f"algorithm.runs={root}/empty: holds no run; name a run, a front, or a folder of runs\n"
    assert not (root / "runs" / algorithm).exists()


def test_policies_that_are_left_out_are_named(root, capsys):
    (root / "runs" / "modpo" / "failed").mkdir()
    (root / "runs" / "modpo" / "failed" / "result.json").write_text('{"status": "failed", "error": "no memory"}')
    for w in WS[:4]:
        (root / "runs" / "modpo" / f"w={w}" / "adapter" / "adapter_config.json").unlink()
        (root / "runs" / "modpo" / f"w={w}" / "adapter").rename(root / f"gone{w}")
    assert json.loads((chosen(root, "target.safer=0.0") / "choice.json").read_text())["candidates"] == 1
    said = capsys.readouterr().out.replace("\n", "")
    assert all(f"left out, without an adapter: {root}/runs/modpo/w={w}" in said for w in WS[:4])
    assert f"left out, failed: {root}/runs/modpo/failed: no memory" in said
