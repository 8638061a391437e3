"""Configuration files that mean harm: refused in a few lines before anything runs or is written."""

import os
import time

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from alignlab.cli import main
from alignlab.config.hydra import compose, files, loader
from alignlab.errors import JobFailed

SECRET = "nobody-may-see-this-value-0123456789"
HANDLER = "{class: multiprocessing.pool.ThreadPool, processes: 1, initializer: 'ext://os.mkdir', initargs: [CANARY]}"
LOGGING = f"version: 1\nhandlers: {{x: {HANDLER}}}\nroot: {{handlers: [x]}}\n"


def logging_with(handler):
    return f"{{version: 1, handlers: {{x: {handler}}}, root: {{handlers: [x]}}}}"


HYDRA = {
    "a handler's class": f"job_logging: {logging_with(HANDLER)}",
    "Hydra's own log": f"hydra_logging: {logging_with(HANDLER)}",
    "a file is emptied": f"job_logging: {logging_with('{class: logging.FileHandler, filename: victim, mode: w}')}",
    "a handler that posts": "job_logging: {handlers: {x: {class: logging.handlers.HTTPHandler, host: h, url: /x}}}",
    "a formatter's class": "job_logging: {version: 1, formatters: {f: {class: evilpkg.Formatter}}}",
    "an outer object": "job_logging: {version: 1, handlers: {x: {class: logging.StreamHandler, stream: ext://evilpkg.x}}}",
    "a configured object": "job_logging: {version: 1, handlers: {x: {class: logging.StreamHandler, stream: cfg://x}}}",
    "a program of unittest": "job_logging: {version: 1, handlers: {x: {class: unittest.TestProgram, module: evilpkg}}}",
    "a factory": "job_logging: {version: 1, filters: {x: {'()': os.mkdir, path: CANARY}}}",
    "a search path that imports": "searchpath: ['pkg://evilpkg']",
    "a search path": "searchpath: ['file:///tmp']",
    "a callback": "callbacks: {x: {_target_: os.mkdir, path: CANARY}}",
    "a library to load": "job: {env_set: {LD_PRELOAD: ./evil.so}}",
    "variables to copy": "job: {env_copy: [A_TOKEN]}",
    "another folder": "job: {chdir: true}",
    "a job's name": "job: {name: ../CANARY}",
    "copies of the config elsewhere": "output_subdir: /tmp/CANARY",
    "copies of the config above": "output_subdir: ../../CANARY",
    "a run folder above": "run: {dir: ../CANARY}",
    "a run folder anywhere": "run: {dir: /tmp/CANARY}",
    "a run folder beside the root": "run: {dir: mine}",
    "a run folder that climbs": "run: {dir: '${paths.runs}/../CANARY'}",
    "a run folder that climbs later": "run: {dir: '${paths.runs}/x/../../CANARY'}",
    "a run folder at home": "run: {dir: '~/CANARY'}",
    "a run folder by another setting": "run: {dir: '${tracker.project}'}",
    "a run folder by a part": "run: {dir: '${paths.runs}/${tracker.project}'}",
    "the run node by another setting": "run: ${tracker}",
    "a sweep folder": "sweep: {dir: /tmp/CANARY}",
    "a sweep's subfolder": "sweep: {subdir: ../../CANARY}",
    "a help text": "help: {template: '$PATH'}",
    "a launcher's class": "launcher: {_target_: os.mkdir, path: CANARY}",
    "a class below the launcher": "launcher: {n_jobs: {_target_: os.mkdir, path: CANARY}}",
    "a launcher's class by name": "launcher: {partition: 'ext://os.mkdir'}",
    "shell lines before a Slurm job": "launcher: {setup: ['mkdir CANARY']}",
    "a line end in a batch script": 'launcher: {partition: "x\\nmkdir CANARY"}',
    "a blank in a batch script": "launcher: {account: 'x --wrap=evil'}",
    "another Python": "launcher: {python: ./evil}",
    "any option of Slurm": "launcher: {additional_parameters: {wrap: mkdir CANARY}}",
    "a folder of submitit": "launcher: {submitit_folder: /tmp/CANARY}",
    "packages for Ray": "launcher: {ray: {init: {runtime_env: {pip: [evilpkg]}}}}",
    "a stranger's cluster": "launcher: {ray: {init: {address: 'ray://stranger:10001'}}}",
    "a sweeper's class": "sweeper: {_target_: os.mkdir, path: CANARY}",
    "a swept folder": "sweeper: {params: {hydra.run.dir: /tmp/CANARY}}",
    "a swept callback": "sweeper: {params: {'++hydra.callbacks.x._target_': os.mkdir}}",
    "a swept root": "sweeper: {params: {paths.runs: /tmp/CANARY}}",
    "two overrides in one": "sweeper: {params: {'w=0.5,hydra.run.dir': /tmp/CANARY}}",
    "a swept list": "sweeper: {params: {w: [0.1, 0.5]}}",
    "a mode that is none": "mode: NOPE",
    "a verbosity that is none": "verbose: nope",
}
"""hydra's node of an experiment."""

ELSEWHERE = {
    "the root": "paths: {runs: /tmp/CANARY}",
    "the root above": "paths: {runs: runs/../../CANARY}",
    "another root beside": "paths: {runs: mine}",
    "the cache": "paths: {cache: /tmp/CANARY}",
    "the paths by another setting": "paths: ${tracker}",
    "hydra by another setting": "hydra: ${tracker}",
    "a callback by choice": "defaults: [override /hydra/callbacks: mine]",
    "a choice put elsewhere": "defaults: [/tracker/mine@hydra.job_logging]",
    "an installed choice put elsewhere": "defaults: [/tracker/auto@hydra.help]",
    "a launcher of its own": "defaults: [override /hydra/launcher: mine]",
    "a launcher that rents": "defaults: [override /hydra/launcher: ray_aws]",
    "a variable": "tracker: {project: '${oc.env:A_TOKEN}'}",
    "a variable with a default": "tracker: {project: '${oc.env:A_TOKEN,x}'}",
    "a variable in a choice": "defaults: [override /tracker: '${oc.env:A_TOKEN}']",
    "a decoder": "tracker: {project: '${oc.decode:x}'}",
    "a maker": "tracker: '${oc.create:{kind:auto}}'",
    "alignlab's resolver": "tracker: {project: '${alignlab.run_dir:}'}",
    "a resolver by another name": "tracker: {project: '${${seed}:x}'}",
    "nested interpolations": f"tracker: {{project: '{'${' * 3000}{'}' * 3000}'}}",
    "a relative interpolation": "tracker: {project: '${.kind}'}",
    "a mapping for a value": "algorithm: {rewards: {a: '${tracker}'}}",
    "interpolations that multiply": "tracker: {project: '${model.name}${model.name}', kind: '${tracker.project}'}",
    "many interpolations": f"tracker: {{project: '{'${model.name}' * 65}'}}",
    "a key": "tracker: {project: glpat-0123456789abcdefghij}",
    "a key of 40 digits": f"tracker: {{project: {'0123456789abcdef0123456789abcdef01234567'}}}",
    "a value from the environment": f"tracker: {{project: x{SECRET}}}",
    "aliases that multiply": "a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]",
    "nested brackets": f"w: {'[' * 3000}{']' * 3000}",
    "a Python object": "w: !!python/object/apply:os.mkdir [CANARY]",
    "a path of OmegaConf's": "w: !!python/object/apply:pathlib.Path [x]",
    "a tag": "w: !mine 1",
    "a number of 5,000 digits": f"seed: {'9' * 5000}",
    "a long value": f"tracker: {{project: '{'x' * 100_000}'}}",
    "a large file": "# " + "x" * 300_000,
    "many values": f"w: [{'1, ' * 6000}]",
    "two documents": "w: 0.1\n---\nw: 0.2",
    "a key twice": "seed: 1\nseed: 2",
    "no settings": "- 1\n- 2",
    "not YAML": "w: [0.1",
    "a class in a group": "model: {_target_: os.mkdir}",
    "remote code": "model: {trust_remote_code: true}",
    "a name that climbs": "model: {name: ../CANARY}",
    "a long name": f"model: {{name: {'x' * 300}}}",
    "a data set's name": "dataset: {name: /tmp/CANARY}",
    "an objective's name": "dataset: {use: [../CANARY, better], objectives: {../CANARY: {label: x}}}",
}
"""The rest of an experiment."""

JUDGE = "defaults: [override /judge: openai]\njudge: "
REWARD = "algorithm: {rewards: {safer: "
ENDPOINTS = {
    "a stranger's judge": JUDGE + "{base_url: 'http://stranger/v1'}",
    "a stranger's judge on this machine": JUDGE + "{base_url: 'http://127.0.0.1:1/v1'}",
    "a variable that is no judge's": JUDGE + "{api_key_env: A_TOKEN}",
    "a stranger's generator": "defaults: [override /generator: server]\n"
    "generator: {model: x, base_url: 'http://stranger/v1'}",
    "a stranger's reward": "defaults: [override /reward: http]\nreward: {url: 'http://stranger/v1'}",
    "a reward's variable": REWARD + "{kind: http, api_key_env: A_TOKEN}}}",
    "an objective's reward": REWARD + "{kind: http, url: 'http://stranger/'}}}",
    "a swept judge": JUDGE + "{}\nhydra: {sweeper: {params: {judge.base_url: 'http://stranger/v1'}}, mode: MULTIRUN}",
    "metadata": JUDGE + "{base_url: 'http://169.254.169.254/v1'}",
    "a password": JUDGE + "{base_url: 'http://me:secretsecret@stranger/v1'}",
    "another protocol": JUDGE + "{base_url: 'file:///etc/passwd'}",
}

PRESETS = {
    "hydra's logs by choice": "defaults: [config, override hydra/job_logging: default]",
    "a log of its own": "defaults: [config, override hydra/job_logging: mine]",
    "a preset's search path that imports": "defaults: [config]\nhydra: {searchpath: ['pkg://evilpkg']}",
    "a preset's search path": "defaults: [config]\nhydra: {searchpath: ['file:///tmp']}",
    "a preset's log": f"defaults: [config]\nhydra: {{job_logging: {logging_with(HANDLER)}}}",
}
"""For --config-name."""

CASES = {
    **{name: "hydra:\n  " + text for name, text in HYDRA.items()},
    **ELSEWHERE,
    **ENDPOINTS,
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder with a stranger's folder of choices beside it."""
    work = tmp_path / "work"
    for folder in ("work", "theirs/experiment", "theirs/tracker", "theirs/hydra/job_logging", "theirs/hydra/callbacks"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "theirs" / "hydra" / "launcher").mkdir()
    theirs = tmp_path / "theirs"
    (theirs / "tracker" / "mine.yaml").write_text(LOGGING)
    (theirs / "hydra" / "job_logging" / "mine.yaml").write_text(LOGGING)
    (theirs / "hydra" / "callbacks" / "mine.yaml").write_text("x: {_target_: os.mkdir, path: CANARY}\n")
    (theirs / "hydra" / "launcher" / "mine.yaml").write_text("_target_: os.mkdir\npath: CANARY\n")
    (work / "victim").write_text("precious")
    package = work / "evilpkg"
    package.mkdir()
    (package / "__init__.py").write_text("import os\nos.mkdir('CANARY')\n")
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(work))
    monkeypatch.setenv("A_TOKEN", SECRET)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    return work


def files_below(folder):
    return {path: path.stat().st_size for path in folder.rglob("*") if "__pycache__" not in path.parts}


def run(here, text, *arguments):
    """The exit code of the command with an experiment of this text."""
    (here.parent / "theirs" / "experiment" / "x.yaml").write_text(f"# @package _global_\n{text}\n")
    return main(["--config-dir", "../theirs", "experiment=x", *arguments])


def run_preset(here, text):
    """The exit code of the command with a preset of this text."""
    (here.parent / "theirs" / "x.yaml").write_text(text + "\n")
    return main(["--config-dir", "../theirs", "--config-name", "x"])


@pytest.mark.parametrize(
    ("start", "text"),
    [*((run, text) for text in CASES.values()), *((run_preset, text) for text in PRESETS.values())],
    ids=[*CASES, *PRESETS],
)
def test_it_is_refused_in_a_few_lines_and_does_nothing(here, capsys, start, text):
    before = files_below(here.parent)
    begin = time.process_time()
    assert start(here, text) == 2
    assert time.process_time() - begin < 2
    said = capsys.readouterr()
    assert said.out == ""
    assert 1 <= len(said.err.splitlines()) <= 5
    assert len(said.err) < 2500
    assert SECRET not in said.err
    after = files_below(here.parent)
    assert {path for path in after if path.name != "x.yaml"} == {*before}
    assert after[here / "victim"] == before[here / "victim"]
    assert not os.path.exists("/tmp/CANARY")


def test_there_are_as_many_as_the_plan_asks_for():
    assert len(CASES) + len(PRESETS) >= 70


def test_the_plain_run_of_these_tests_is_not_refused(here):
    """Control: it is the text that is refused, not the way it is given."""
    assert run(here, "seed: 3", "--cfg", "job") == 0


@pytest.fixture
def unguarded(monkeypatch):
    """The run ends before its job: what happens until then is Hydra's."""
    monkeypatch.setattr("alignlab.runs.runner.run_in_folder", lambda *_: (_ for _ in ()).throw(JobFailed("no job")))
    return monkeypatch


def nothing(*_, **__):
    return None


@pytest.mark.parametrize("name", ["a handler's class", "Hydra's own log"])
def test_without_the_closed_list_the_canary_is_made(here, unguarded, name):
    unguarded.setattr(loader, "check_settings", nothing)
    run(here, CASES[name])
    assert (here / "CANARY").is_dir()


def test_without_the_closed_list_a_file_is_emptied(here, unguarded):
    unguarded.setattr(loader, "check_settings", nothing)
    run(here, CASES["a file is emptied"])
    assert (here / "victim").read_text() != "precious"


def test_without_the_closed_list_folders_lie_elsewhere(here, unguarded):
    unguarded.setattr(loader, "check_settings", nothing)
    run(here, CASES["a run folder above"])
    assert (here.parent / "CANARY").is_dir()


def test_without_the_loader_a_search_path_imports(here, unguarded):
    unguarded.setattr(
        loader.ClosedListLoader, "_process_config_searchpath", ConfigLoaderImpl._process_config_searchpath
    )
    run_preset(here, PRESETS["a preset's search path that imports"])
    assert (here / "CANARY").is_dir()


def test_without_the_check_of_choices_a_callback_is_built(here, unguarded):
    unguarded.setattr(loader, "check_choice", nothing)
    unguarded.setattr(loader, "check_settings", nothing)
    run(here, CASES["a callback by choice"])
    assert (here / "CANARY").is_dir()


def test_without_the_rule_for_resolvers_a_variable_is_read(here, unguarded, capsys):
    unguarded.setattr(files, "has_resolver", lambda text: False)
    assert run(here, CASES["a variable"]) == 2
    assert "tracker.project: holds a key" in capsys.readouterr().err, "the second guard"
    unguarded.setattr(compose, "holds_key", lambda text: False)
    assert run(here, CASES["a variable"], "--cfg", "job", "--resolve") == 0
    assert SECRET in capsys.readouterr().out


def test_without_confirmation_a_stranger_would_be_asked(here, unguarded):
    unguarded.setattr("alignlab.cli.check_endpoints", lambda *_: [])
    assert run(here, CASES["a stranger's judge"], "--cfg", "job") == 0


def test_an_address_is_confirmed_by_hand_or_by_the_users_list(here, capsys):
    text = CASES["a stranger's judge"]
    assert run(here, text, "judge.base_url=http://stranger/v1", "--cfg", "job") == 0
    assert run(here, text, "judge.base_url=http://other/v1", "--cfg", "job") == 0
    capsys.readouterr()
    (here.parent / "home" / "alignlab").mkdir(parents=True)
    listed = here.parent / "home" / "alignlab" / "endpoints"
    listed.write_text("# mine\nhttp://strange/v1\n")
    assert run(here, text, "--cfg", "job") == 2
    listed.write_text("# mine\nhttp://stranger/v1  # the box upstairs\n")
    assert run(here, text, "--cfg", "job") == 0
    assert "judge.base_url=http://stranger/v1: confirmed in" in capsys.readouterr().err
    assert run(here, CASES["a variable that is no judge's"], "judge.api_key_env=A_TOKEN", "--cfg", "job") == 0


FINE = {
    "a launcher's numbers": "defaults: [override /hydra/launcher: slurm]\n"
    "hydra: {launcher: {timeout_min: 5, partition: gpu-a100, mem_gb: 8}}",
    "folders below the root": "paths: {runs: runs/mine}\nhydra: {run: {dir: '${paths.runs}/w=${w}'}, verbose: true}",
    "a sweep": "hydra: {mode: MULTIRUN, sweeper: {params: {w: '0.1,0.5', algorithm: 'dpo,modpo'}}}",
    "another setting's value": "algorithm: {beta: '${model.learning_rate}'}",
    "a revision": "defaults: [override /model: hf]\n"
    "model: {path: owner/name, revision: 0123456789abcdef0123456789abcdef01234567}",
}


@pytest.mark.parametrize("text", FINE.values(), ids=list(FINE))
def test_what_is_on_the_list_is_taken(here, text):
    if "slurm" in text:
        pytest.importorskip("submitit")
    assert run(here, text, "--cfg", "job") == 0
