"""The real command line: exit codes, one-line errors before anything is loaded or made, no torch."""

import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from filelock import FileLock

from alignlab import cli
from alignlab.cli import main
from alignlab.config.hydra.compose import composing, read_command, register, run_config
from alignlab.config.plan import plan_of
from alignlab.errors import ConfigError, OnlyPlanned

ROW = {"prompt": "a b", "response_0": "x", "response_1": "y", "better_response_id": 0, "safer_response_id": 1}
HEAVY = ("torch", "transformers", "trl", "datasets")


def write_data(folder):
    """Files that cannot be used, each in its own way."""
    lacking = {key: value for key, value in ROW.items() if key != "safer_response_id"}
    line, short = json.dumps(ROW), json.dumps(lacking)
    (folder / "good.jsonl").write_text(line + "\n")
    (folder / "lacks.jsonl").write_text(short + "\n")
    (folder / "empty.jsonl").write_text("")
    (folder / "blank.jsonl").write_text("\n\n")
    (folder / "torn.jsonl").write_text(f"{line}\n{line[:30]}")
    (folder / "latin.jsonl").write_bytes(line[:-1].encode() + b', "z": "\xe9"}\n')
    (folder / "array.json").write_text(json.dumps([ROW], indent=1))
    (folder / "label.jsonl").write_text(json.dumps({**ROW, "better_response_id": 2}) + "\n")
    (folder / "not.parquet").write_text("hello")
    (folder / "table.csv").write_text("a,b\n")
    (folder / "nothing").mkdir()
    (folder / "model").mkdir()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, with unusable data beside it in data/."""
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    return work


DATA = "model=scratch dataset=pku_saferlhf dataset.path=../data/"
REFUSED = {
    "w=1.5": "w=1.5: must be between 0 and 1",
    "w=abc": "w=abc: must be a finite number",
    "w=nan": "w=nan: must be a finite number",
    "algorithm.objective=better w=0.01": "w=0.01: the weight of better must be 0 or at least 0.05",
    "w=[0.5,0.6]": "weights sum to 1.1, must sum to 1",
    "-m w=0.1,2.0": "w=2.0: must be between 0 and 1",
    "--config-name w_front w=7": "w=7: must be between 0 and 1",
    "algorithm=modpoo": "did you mean modpo?",
    "model=nope": "model=nope: choose one of",
    "algorithm.bta=0.1": "did you mean beta?",
    "seed=x": "seed=x: must be a whole number",
    "algorithm=dpo algorithm.rewards.safer.beta=1": "algorithm.rewards: has no effect on algorithm=dpo",
    "algorithm.rewards.sfer.beta=1": "algorithm.rewards.sfer: no such objective; did you mean safer?",
    "algorithm.objective=better algorithm.rewards.better.beta=1": "is trained on its pairs",
    "algorithm.rewards.safer.adapter=/nope": "algorithm.rewards.safer.adapter=/nope: no such folder",
    "algorithm=dpo algorithm.objective=nope": "algorithm.objective=nope: no such objective",
    "algorithm=evaluate algorithm.adapter=/nope": "algorithm.adapter=/nope: no such folder",
    "algorithm=front algorithm.runs=[/nope]": "algorithm.runs=/nope: no such folder",
    "reward=gold w=0 algorithm.objective=better": "w=0: is the policy behind the reward of safer",
    "model=hf": "model.path=null: must name a folder or a hub id",
    "model=hf model.path=/nope": "model.path=/nope: no such folder",
    "model=hf model.path=nope": "model.path=nope: no such folder",
    "model=hf model.path=./nope": "model.path=./nope: no such folder",
    "model=hf model.path=../data/model": "the folder holds no config.json",
    "model=hf model.path=~/nope": "write $HOME for ~",
    "model=tiny dataset=pku_saferlhf": "model=tiny: knows the toy's words only",
    "dataset.objectives.better.gold=nope": "dataset.objectives.better.gold=nope: choose one of",
    "hardware.processes=3": "must divide the effective batch",
    "hardware.fsdp=true": "hardware.fsdp=true: needs hardware.device=cuda and hardware.processes > 1",
    "hardware=cpu_2 hardware.fsdp=true": "hardware.fsdp=true: needs hardware.device=cuda and hardware.processes > 1",
    "hardware=gpu hardware.fsdp=true": "hardware.fsdp=true: needs hardware.device=cuda and hardware.processes > 1",
    "hardware.nodes=0": "hardware.nodes=0: must be in [1, 1024]",
    "hardware.nodes=2000": "hardware.nodes=2000: must be in [1, 1024]",
    "hardware.nodes=two": "hardware.nodes=two: must be a whole number",
    "hardware.nodes=null": "hardware.nodes=null: must not be null",
    "hardware.node=2": "did you mean nodes?",
    "hardware.nodes=3": "hardware.nodes=3: times hardware.processes=1 must divide the effective batch",
    "-m hardware.nodes=1,2": "hardware.nodes=2: must be the same in every run of a sweep",
    "-m seed=1,2 hardware.nodes=2 hydra/launcher=parallel": "hardware.nodes=2: a sweep on several nodes runs one job",
    "hardware=gpus_8_fsdp trainer.max_tokens_per_forward=4096": "max_tokens_per_forward=4096: must be null with",
    "hardware=gpus_8_fsdp model=qwen2.5_0.5b_instruct model.quantization=nf4": "quantization=nf4: must be null with",
    "hydra.run.dir=../data/good.jsonl": "is a file, not a folder",
    f"{DATA}god.jsonl": "god.jsonl: does not exist; did you mean good.jsonl?",
    "model=scratch dataset=pku_saferlhf dataset.path=no/such.jsonl": "there is no folder no either",
    f"{DATA}lacks.jsonl": "lacks.jsonl:1 safer_response_id: no such column; did you mean better_response_id?",
    f"{DATA}lacks.parquet": "lacks.parquet:1 safer_response_id: no such column; did you mean better_response_id?",
    f"{DATA}empty.parquet": "holds no rows",
    f"{DATA}not.parquet": "cannot be read as Parquet",
    f"{DATA}empty.jsonl": "holds no rows",
    f"{DATA}blank.jsonl": "holds no rows",
    f"{DATA}torn.jsonl": "torn.jsonl:2: not JSON",
    f"{DATA}latin.jsonl": "latin.jsonl:1: byte 111 is not UTF-8",
    f"{DATA}array.json": "one object a line is needed",
    f"{DATA}label.jsonl": "label.jsonl:1 better_response_id: must be 0 or 1, is 2",
    f"{DATA}table.csv": "must end in one of .jsonl, .json, .parquet",
    f"{DATA}nothing": "the folder holds no .jsonl, .json, .parquet file",
    "--nope": "--nope: no such flag",
    "--w=0.3": "settings are key=value without dashes",
    "--config-name w_frnt": "did you mean w_front?",
    "--config-dir /nope": "--config-dir /nope: no such folder",
    "--config-path /nope": "--config-path /nope: not supported",
    "--experimental-rerun x.pickle": "not supported, because it unpickles",
    "--resolve": "--resolve: goes with --cfg job",
    "--help algorithm=modpoo": "did you mean modpo?",
}


@pytest.mark.parametrize(("line", "said"), REFUSED.items(), ids=list(REFUSED))
def test_bad_input_ends_with_2_and_a_line(here, capsys, line, said):
    if "lacks.parquet" in line or "empty.parquet" in line:
        write_parquet(here.parent / "data")
    assert main(line.split()) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""
    assert list(here.iterdir()) == [], "no run folder is made"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "hardware.nodes=2: nothing says which node this is; start the same command on every node"),
        ({"NODE_RANK": "1"}, "hardware.nodes=2: nothing says where node 0 is"),
        ({"NODE_RANK": "2", "MASTER_ADDR": "here"}, "hardware.nodes=2: NODE_RANK=2 must be a number from 0 to 1"),
        ({"SLURM_NODEID": "0", "SLURM_NNODES": "4"}, "hardware.nodes=2: SLURM_NNODES says 4; both must be the same"),
    ],
)
@pytest.mark.parametrize("line", ["w=0.3", "-m w=0.3,0.4"])
def test_several_nodes_without_their_variables_are_refused(here, capsys, monkeypatch, line, variables, said):
    for name in [name for name in os.environ if name.startswith("SLURM_")] + ["NODE_RANK", "GROUP_RANK", "MASTER_ADDR"]:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main([*line.split(), "hardware.nodes=2"]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""
    assert list(here.iterdir()) == []


def write_parquet(folder):
    import pyarrow
    import pyarrow.parquet

    lacking = pyarrow.table({key: [value] for key, value in ROW.items() if key != "safer_response_id"})
    pyarrow.parquet.write_table(lacking, folder / "lacks.parquet")
    whole = pyarrow.table({key: [value] for key, value in ROW.items()})
    pyarrow.parquet.write_table(whole.slice(0, 0), folder / "empty.parquet")


def test_good_input_passes_the_same_checks(here, capsys):
    assert main(["--cfg", "job", *f"{DATA}good.jsonl w=0.3".split()]) == 0
    assert capsys.readouterr().out.startswith("w: 0.3\n")


def alignlab(*arguments, cwd):
    """(exit code, standard output, standard error, heavy modules that were imported, seconds) of the real command."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "alignlab", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    seconds = time.perf_counter() - start
    lines = ended.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    said = "\n".join(line for line in lines if not line.startswith("import time:"))
    return ended.returncode, ended.stdout, said, sorted(imported & set(HEAVY)), seconds


@pytest.mark.parametrize(
    ("arguments", "code", "printed"),
    [
        (["w=abc"], 2, ""),
        (["-m", "w=0.1,2.0"], 2, ""),
        (["algorithm=modpoo"], 2, ""),
        (["hardware.fsdp=true"], 2, ""),
        (["hardware.nodes=2"], 2, ""),
        (["--help"], 0, "Groups:\n  algorithm"),
        (["--version"], 0, "alignlab "),
        (["--cfg", "job"], 0, "w: 0.5\n"),
        (["-m", "w=0.3,0.4", "--cfg", "job"], 0, "w: 0.3\n"),
        (["--config-name", "w_front", "--cfg", "job"], 0, "w: 0\n"),
        (["--info", "searchpath"], 0, "sweeps"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_real_command_is_quick_and_imports_no_torch(here, arguments, code, printed):
    ended, out, said, heavy, seconds = alignlab(*arguments, cwd=here)
    assert (ended, heavy) == (code, [])
    assert printed in out
    assert len(said.splitlines()) == (1 if code else 0)
    assert "Traceback" not in said
    assert seconds < 10, "a second of work; the rest is room for a busy machine"
    assert list(here.iterdir()) == []


def test_a_folder_in_use_is_refused(here):
    folder = here / "busy"
    folder.mkdir()
    with FileLock(folder / ".lock"):
        code, _, said, heavy, _ = alignlab("hydra.run.dir=busy", cwd=here)
    assert (code, heavy) == (2, [])
    assert "in use by another process" in said
    assert len(said.splitlines()) == 1
    assert not (folder / "result.json").exists()


def settings_of_a_plain_run():
    """What `python -m alignlab` records as its settings."""
    register()
    with composing():
        (composed,) = read_command("config", [], multirun=False).jobs()
        return plan_of(run_config(composed)).record


def test_a_finished_run_is_not_run_again(here):
    (here / "old").mkdir()
    record = {
        "status": "done",
        "algorithm": "modpo",
        "weights": {"better": 0.5, "safer": 0.5},
        "seed": 0,
        "error": None,
    }
    record |= {"model": "tiny", "dataset": "toy"}
    record |= {"metrics": {"kl": {"mean": 0.5, "ci95": [0.4, 0.6], "n": 9}}, "axes": {"kl": "kl"}, "artifacts": {}}
    (here / "old" / "result.json").write_text(json.dumps(record))
    (here / "old" / "config.json").write_text(json.dumps(settings_of_a_plain_run()))
    code, out, said, heavy, _ = alignlab("hydra.run.dir=old", cwd=here)
    assert (code, said, heavy) == (0, "", [])
    assert out.startswith("done before: ")


def test_a_job_that_only_says_what_it_would_do_has_not_failed_and_is_not_done(here, capsys, monkeypatch):
    class Planner:
        def run(config, run, outcome):
            raise OnlyPlanned("judge.dry_run=true: 5 calls")

    monkeypatch.setattr("alignlab.runs.runner.load_job", lambda name: Planner)
    assert main(["hydra.run.dir=plan"]) == 0
    assert capsys.readouterr().out.endswith("judge.dry_run=true: 5 calls\n")
    assert json.loads((here / "plan" / "result.json").read_text())["status"] == "interrupted"
    assert main(["-m", "seed=1,2"]) == 0
    assert capsys.readouterr().out.count("judge.dry_run=true: 5 calls\n") == 2


def test_a_setting_without_effect_is_named_once(here, capsys):
    assert main(["--cfg", "job", "algorithm=dpo", "w=0.3"]) == 0
    assert capsys.readouterr().err == "warning: w=0.3: has no effect on algorithm=dpo\n"


def test_a_job_without_a_gpu_is_refused_only_where_it_would_run(here, capsys, monkeypatch):
    monkeypatch.setattr("alignlab.checks.machine._GPU_NODES", ("no-such-device",))
    assert main(["hardware=gpu"]) == 2
    assert "hardware.device=cuda: this machine has no GPU" in capsys.readouterr().err
    pytest.importorskip("submitit")
    assert main(["-m", "hydra/launcher=slurm", "hardware=gpu", "--cfg", "job"]) == 0


def test_what_joins_a_sweep_ends_in_a_line_where_it_cannot(monkeypatch, capsys):
    def refuses(jobs):
        raise ConfigError("algorithm.compare=x: holds no corr.json")

    monkeypatch.setitem(sys.modules, "joiner_of_a_test", types.SimpleNamespace(after_sweep=refuses))
    algorithm = types.SimpleNamespace(uses=types.SimpleNamespace(after_sweep="joiner_of_a_test"))
    checked = types.SimpleNamespace(jobs=[(types.SimpleNamespace(algorithm=algorithm), Path())], batch=[])
    assert cli._after_sweep(checked, None, 0) == 2
    assert capsys.readouterr().err == "algorithm.compare=x: holds no corr.json\n"
