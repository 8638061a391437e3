"""One run for every w, by the real command: points, export, refusals, and a kill that changes nothing."""

import json
import shutil
from pathlib import Path

import pytest

from support.commands import SMALL, alignlab, result, run_folder

STEP = "alignlab.training.callbacks:ProgressCallback.on_step_end"
CONDITIONED = ("algorithm=modpo_conditioned", "reward=gold", "algorithm.normalise=false", "algorithm.export_at=[0.2]")
ROOMY = [setting for setting in SMALL if not setting.startswith("algorithm.")]


def adapters(root):
    """Bytes of every adapter's files by their path below the run."""
    folder = run_folder(root, "modpo_conditioned")
    files = [*folder.rglob("adapter_model.safetensors"), *folder.rglob("alignlab.json")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if "checkpoints" not in file.parts}


@pytest.fixture(scope="module")
def done(whole, tmp_path_factory):
    """The run without a break, on the reference, pairs and exact front that `whole` has made."""
    folder = tmp_path_factory.mktemp("conditioned")
    (folder / "cache").symlink_to(whole / "cache")
    ended = alignlab(*CONDITIONED, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder


def test_a_run_has_its_points(done):
    folder = run_folder(done, "modpo_conditioned")
    record = result(folder)
    assert (record["w"], record["weights"], record["axes"]) == (None, None, {})
    assert json.loads((folder / "adapter" / "alignlab.json").read_text())["ranks"] == {"better": 8, "safer": 8}
    (point,) = json.loads((folder / "points.json").read_text())
    evaluated = result((folder / point).resolve())
    assert evaluated["weights"] == pytest.approx({"better": 0.2, "safer": 0.8})
    assert evaluated["policy"].items() >= {"algorithm": "modpo_conditioned", "seed": 0}.items()
    assert ((folder / point).resolve() / evaluated["policy"]["adapter"] / "adapter_config.json").is_file()
    assert evaluated["metrics"]["helpful"]["n"] > 0


def test_killed_and_resumed_it_has_the_same_bytes(done, tmp_path):
    shared = (*CONDITIONED, f"paths.cache={done / 'cache'}")  # PEFT records the base model's path
    for breaks in ((STEP, 3, "SIGKILL"), ("alignlab.models.conditioned:save_file", 1, "SIGKILL")):
        assert alignlab(*shared, cwd=tmp_path, breaks=breaks).returncode == -9
    assert alignlab(*shared, cwd=tmp_path).returncode == 0
    assert adapters(tmp_path) == adapters(done)
    assert len(adapters(done)) == 4


@pytest.fixture(scope="module")
def further(done, tmp_path_factory):
    """The same with a point at w=0.6 beside the one at w=0.2, and what the command said that added it."""
    folder = tmp_path_factory.mktemp("further") / "copy"
    shutil.copytree(done, folder, symlinks=True)
    more = alignlab(*CONDITIONED[:-1], "algorithm.export_at=[0.2,0.6]", "algorithm.draws=1", cwd=folder)
    assert more.returncode == 0, more.stderr
    return folder, more.stdout


def test_a_further_point_trains_nothing_and_front_collects_both(done, further):
    root, said = further
    folder, name = run_folder(root, "modpo_conditioned"), "adapter/adapter_model.safetensors"
    assert "done before" in said
    trained = (run_folder(done, "modpo_conditioned") / name).stat().st_mtime_ns
    assert (folder / name).stat().st_mtime_ns == trained
    rows = (folder / "front" / "front.csv").read_text().splitlines()
    assert len(rows) == 3
    front = alignlab("algorithm=front", cwd=root, small=ROOMY)
    assert front.returncode == 0, front.stderr
    assert "modpo_conditioned" in Path(next((root / "runs" / "front").rglob("front.csv"))).read_text()


def test_a_target_is_solved_for_w_and_exported(further):
    """There are two points, at w=0.2 and 0.6; the target lies halfway between their means."""
    root, _ = further
    folder = run_folder(root, "modpo_conditioned")
    points = [(folder / point).resolve() for point in json.loads((folder / "points.json").read_text())]
    low, high = sorted(result(point)["metrics"]["safe"]["mean"] for point in points)
    target = f"target.safer={(low + high) / 2:.4f}"
    ended = alignlab("algorithm=choose", f"algorithm.runs=[{folder}]", target, cwd=root, small=())
    assert ended.returncode == 0, ended.stderr
    chosen = run_folder(root, "choose")
    found = json.loads((chosen / "choice.json").read_text())
    assert found["candidates"] > 50
    assert 0.2 <= found["weights"]["better"] <= 0.6
    card = json.loads((chosen / "adapter" / "alignlab.json").read_text())
    assert (card["conditioned"], card["weights"]) == (False, pytest.approx(found["weights"]))
    assert (chosen / "adapter" / "adapter_model.safetensors").is_file()


def test_an_export_is_the_point_at_its_w(done):
    folder = run_folder(done, "modpo_conditioned")
    ended = alignlab("algorithm=export", f"algorithm.adapter={folder / 'adapter'}", "w=0.2", cwd=done, small=())
    assert ended.returncode == 0, ended.stderr
    own = run_folder(done, "export") / "adapter"
    point = folder / "points" / "w=0.2" / "adapter"
    for name in ("adapter_model.safetensors", "alignlab.json", "adapter_config.json"):
        assert (own / name).read_bytes() == (point / name).read_bytes()
    refused = alignlab("algorithm=export", f"algorithm.adapter={own}", "w=0.2", cwd=done, small=())
    assert refused.returncode == 2
    assert "is an ordinary adapter; give a modpo_conditioned run's" in refused.stderr
    wide = alignlab("algorithm=export", f"algorithm.adapter={folder / 'adapter'}", "w=1.2", cwd=done, small=())
    assert (wide.returncode, wide.stderr.strip()) == (2, "w=1.2: must be between 0 and 1 (weights=convex: w and 1-w)")


def test_nothing_else_takes_an_adapter_that_is_a_function_of_w(done):
    adapter = run_folder(done, "modpo_conditioned") / "adapter"
    for algorithm in ("evaluate", "merge"):
        ended = alignlab(f"algorithm={algorithm}", f"algorithm.adapter={adapter}", cwd=done, small=())
        assert ended.returncode == 2
        assert "is a function of w" in ended.stderr
        assert "algorithm=export" in ended.stderr


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["algorithm.loss=sigmoid"], "algorithm.normalise=true: must be false with algorithm.loss=sigmoid"),
        (["algorithm.loss=ipo"], "algorithm.loss=ipo: did you mean discopop?"),
        (["algorithm.draws=0"], "algorithm.draws=0: must be in [1, 1024]"),
        (["algorithm.concentration=0"], "algorithm.concentration=0.0: must be in (0, 1e3]"),
        (["algorithm.export_at=[0.2,1.3]"], "algorithm.export_at: w=1.3: must be between 0 and 1"),
        (["algorithm.export_at=[0.2,0.2]"], "algorithm.export_at=[0.2, 0.2]: must name each w once"),
        (["dataset.use=[better]"], "leaves nothing to balance"),
    ],
)
def test_refusals(tmp_path, overrides, said):
    ended = alignlab("algorithm=modpo_conditioned", *overrides, cwd=tmp_path, small=())
    assert ended.returncode == 2
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
