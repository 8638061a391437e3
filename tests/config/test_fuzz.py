"""Broken command lines, drawn at random from every setting: each is refused in a few lines, quickly, with nothing done.

ALIGNLAB_FUZZ sets their number (`make fuzz` takes 500), and ALIGNLAB_FUZZ_SEED draws others.
"""

import os
import random
import re
import string
import time

import pytest
from omegaconf import OmegaConf

from alignlab.cli import main
from alignlab.config.roots import config_root

COUNT = int(os.environ.get("ALIGNLAB_FUZZ", "8"))
SEED = int(os.environ.get("ALIGNLAB_FUZZ_SEED", "0"))
CHUNKS = 2
MOST_LINES, MOST_SECONDS = 5, 2.0
ALGORITHMS = sorted(file.stem for file in (config_root("conf") / "algorithm").glob("*.yaml") if file.stem != "front")
GROUPS = ("model", "dataset", "algorithm", "weights", "peft", "hardware", "generator", "judge", "tracker")
NO_NUMBER = ("abc", "1..2", "true", "[1]", "{a: 1}", "null")
NO_FLAG = ("maybe", "2", "[true]", "null", "yes please")


def keys():
    """Dotted names and values of all settings of the default configuration, but for Hydra's."""
    config = OmegaConf.load(config_root("conf").parent / "docs" / "default_config.yaml")
    found = {}

    def walk(node, path):
        for name, value in node.items():
            below = f"{path}.{name}" if path else str(name)
            if isinstance(value, dict) and value:
                walk(value, below)
            else:
                found[below] = value

    walk(OmegaConf.to_container(config, resolve=False), "")
    return found


KEYS = keys()


def misspelt(word, rng):
    """One letter of the last part is doubled, left out or exchanged."""
    head, dot, tail = word.rpartition(".")
    where = rng.randrange(len(tail))
    other = rng.choice(string.ascii_lowercase.replace(tail[where], ""))
    forms = [tail[:where] + tail[where] + tail[where:], tail[:where] + other + tail[where + 1 :]]
    if len(tail) > 3:
        forms.append(tail[:where] + tail[where + 1 :])
    wrong = next((form for form in rng.sample(forms, len(forms)) if form != tail), tail + "x")
    return head + dot + wrong


def unknown_key(rng):
    return [f"{misspelt(rng.choice(sorted(KEYS)), rng)}=1"]


def added_key(rng):
    key = rng.choice([name for name in sorted(KEYS) if "." in name])
    return [f"++{key.rpartition('.')[0]}.{rng.choice(('nope', 'lr', 'x_1'))}=1"]


def wrong_type(rng):
    numbers = {name for name, value in KEYS.items() if isinstance(value, int | float) and name != "w"}
    key = rng.choice(sorted(numbers))
    return [f"{key}={rng.choice(NO_FLAG if isinstance(KEYS[key], bool) else NO_NUMBER)}"]


def out_of_range(rng):
    key = rng.choice(
        [
            "trainer.learning_rate",
            "trainer.max_length",
            "trainer.per_device_train_batch_size",
            "trainer.warmup_ratio",
            "peft.r",
            "peft.alpha",
            "peft.dropout",
            "generator.samples",
            "generator.top_p",
            "generator.temperature",
            "generator.max_new_tokens",
            "algorithm.beta",
            "dataset.test_share",
        ]
    )
    return [f"{key}={rng.choice(('-1', '-0.5', 'nan', '-inf', '-1e30'))}"]


def wrong_choice(rng):
    group = rng.choice(GROUPS)
    return [f"{group}={rng.choice(('nope', '../../etc', 'toyy', '__init__', 'a/b', '.'))}"]


def bad_sweep(rng):
    forms = ("w=0.1,", "w=,", "w=range(1,0)", "w=choice()", "w=interval(0,1", "trainer.max_steps=1,two", "seed=0,x")
    return ["-m", rng.choice(forms)]


def bad_quoting(rng):
    key = rng.choice([name for name in sorted(KEYS) if isinstance(KEYS[name], int | float)])
    return [f"{key}{rng.choice(('=[', '={', '=[1', '=a b: c}', '=${nope}', '=${oc.env:X}'))}"]


def no_assignment(rng):
    return [rng.choice(sorted(KEYS)) + rng.choice(("", ":1", " 1", "~"))]


BREAKS = (unknown_key, added_key, wrong_type, out_of_range, wrong_choice, bad_sweep, bad_quoting, no_assignment)


def broken(number):
    """A command line of which at least one part is wrong."""
    rng = random.Random(f"{SEED} {number}")
    breaks = rng.choice(BREAKS)
    return [f"algorithm={rng.choice(ALGORITHMS)}", *breaks(rng)] if breaks is not wrong_choice else breaks(rng)


def fault_of(said, seconds, code, folder):
    """What is wrong with how a command line was refused, or None."""
    if code != 2:
        return f"exit code {code}"
    if not said.strip() or len(said.splitlines()) > MOST_LINES or len(said) > 2000:
        return f"{len(said.splitlines())} lines, {len(said)} characters"
    if re.search(r"Traceback|File \"|hydra\.errors|omegaconf\.errors", said):
        return "a traceback"
    if seconds > MOST_SECONDS:
        return f"{seconds:.1f} s"
    if any(folder.iterdir()):
        return "something was written"
    return None


def refusal_of(given, folder, capsys):
    """(fault or None, what was said)."""
    start = time.process_time()
    try:
        code = main([*given, f"paths.runs={folder}/runs", f"paths.cache={folder}/cache", "--cfg", "job"])
    except BaseException as error:  # an exception that leaves main is a traceback
        code = repr(error)
    seconds = time.process_time() - start
    said = capsys.readouterr().err
    return fault_of(said, seconds, code, folder), said


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_each_is_refused_in_a_few_lines(chunk, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    faults = []
    for number in range(chunk, COUNT, CHUNKS):
        fault, said = refusal_of(broken(number), tmp_path, capsys)
        if fault is not None:
            faults.append(f"{broken(number)}: {fault}: {said[:300]}")
    assert not faults, "\n".join(faults)


def test_control_what_is_right_is_not_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fault, _ = refusal_of(["algorithm=modpo", "w=0.3"], tmp_path, capsys)
    assert fault == "exit code 0"
