"""`--doctor`: whether this machine can do the run at hand. Imports no torch, which a process of its own asks."""

import contextlib
import email.utils
import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from packaging.requirements import Requirement
from rich.table import Table

from alignlab.config.plan import Plan
from alignlab.config.schema import OpenAIJudgeConfig, PretrainedConfig, ServerGeneratorConfig
from alignlab.config.uses import value_at
from alignlab.models.checkpoint import read_json
from alignlab.runs.progress import console

OK, WARNING, FAILS = "ok", "warning", "fails"
NETWORK_S = 3.0
"""Seconds that a server has to answer."""
TORCH_S = 90
"""Seconds for importing torch and asking for its devices."""
CLOCK_S = 120
"""Seconds that a clock may be off; signatures and tokens of services fail beyond a few minutes."""
OVERHEAD = 1 << 30
"""Bytes of a process with torch and its libraries."""
KEPT_CHECKPOINTS = 3
"""Two are kept while a third is written."""
BYTES_A_TRAINED_WEIGHT = 12
"""Float32 weights and Adam's two moments, which is what a checkpoint holds; gradients come beside them in memory."""
_HUB = "https://huggingface.co"
_ASK_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())] if cuda else []
bf16 = torch.cuda.is_bf16_supported() if cuda else True
print(json.dumps({"version": torch.__version__, "gpus": len(free), "free": free, "bf16": bf16}))
"""


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    name: str
    status: str
    said: str


def examine(plan: Plan[Any], folder: Path) -> int:
    """Print what was found of a machine and a run, and return how many findings would make the run fail.

    Args:
        plan: the run.
        folder: where it would be recorded.
    """
    table = Table("what", "status", "found")
    failing = 0
    for finding in _findings(plan, folder):
        failing += finding.status == FAILS
        table.add_row(finding.name, finding.status, finding.said)
    console.print(table, soft_wrap=True)
    return failing


def _findings(plan: Plan[Any], folder: Path) -> Iterator[Finding]:
    yield _versions()
    yield from _devices(plan)
    trained = trained_weights(plan)
    yield _memory(plan, trained)
    yield from _disks(plan, folder, trained)
    yield from _network(plan)


def _versions() -> Finding:
    """Installed packages against alignlab's own bounds."""
    try:
        wanted = importlib.metadata.requires("alignlab") or []
    except importlib.metadata.PackageNotFoundError:
        return Finding("versions", WARNING, "alignlab is not installed as a package, so its bounds are unknown")
    wrong = []
    for requirement in map(Requirement, wanted):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    said = ", ".join(wrong) + "; pip install --upgrade alignlab" if wrong else f"{len(wanted)} bounds hold"
    return Finding("versions", FAILS if wrong else OK, said)


def _devices(plan: Plan[Any]) -> Iterator[Finding]:
    """Torch's devices against hardware.device, processes and bf16."""
    hardware = plan.recipe.hardware
    try:
        asked = subprocess.run([sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=TORCH_S)
        found = json.loads(asked.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        yield Finding("torch", FAILS, f"does not import within {TORCH_S} s; try: python -c 'import torch'")
        return
    count = found["gpus"]
    if hardware.device == "cpu":
        left = f"; {count} GPUs are not used (hardware=gpu)" if count else ""
        yield Finding("devices", OK, f"torch {found['version']}, cpu{left}")
        return
    enough = count >= hardware.processes
    what = f"torch {found['version']} sees {count} GPUs, hardware.processes={hardware.processes}"
    yield Finding("devices", OK if enough else FAILS, what if enough else f"{what}; use hardware=cpu or fewer")
    if hardware.bf16 and not found["bf16"]:
        yield Finding("bf16", FAILS, "this GPU has no bfloat16; hardware.bf16=false")
    needed = model_bytes(plan)
    if enough and needed is not None and needed > min(found["free"]):
        said = f"{_size(min(found['free']))} free, the weights alone take {_size(needed)}"
        yield Finding("GPU memory", FAILS, f"{said}; model.quantization=nf4, or hardware.fsdp=true on several")


def _memory(plan: Plan[Any], trained: int | None) -> Finding:
    """Free memory against weights, and what training keeps beside them."""
    free, weights = psutil.virtual_memory().available, model_bytes(plan)
    if weights is None:
        return Finding(
            "memory", WARNING, f"{_size(free)} free; the model is not on this machine, so its size is unknown"
        )
    beside = (trained or 0) * (BYTES_A_TRAINED_WEIGHT + 4) if plan.algorithm.uses.trains else 0
    here = plan.recipe.hardware.processes if plan.model.device == "cpu" else 1
    needed = here * (weights + beside + OVERHEAD)
    said = f"{_size(free)} free, needs {_size(needed)} beside activations"
    return Finding("memory", OK if needed <= free else FAILS, said)


def _disks(plan: Plan[Any], folder: Path, trained: int | None) -> Iterator[Finding]:
    """Rights, room and clock where the run and the cache are written."""
    needed = KEPT_CHECKPOINTS * BYTES_A_TRAINED_WEIGHT * (trained or 0) if plan.algorithm.uses.trains else 0
    for name, path, room in (("run folder", folder, needed), ("paths.cache", plan.cache, 0)):
        there = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
        try:
            with tempfile.TemporaryFile(dir=there) as stream:
                stream.write(b"x")
                stream.flush()
                written = os.fstat(stream.fileno()).st_mtime
        except OSError as error:
            said = f"{there}: {error.strerror}"
            if name == "paths.cache":
                yield Finding(name, WARNING, f"{said}; what it holds is used, and nothing is kept")
            else:
                yield Finding(name, FAILS, said)
            continue
        free = shutil.disk_usage(there).free
        takes = f", checkpoints take {_size(room)}" if room else ""
        enough = free >= room + (64 << 20)
        yield Finding(name, OK if enough else FAILS, f"{there}: can be written, {_size(free)} free{takes}")
        if abs(written - time.time()) > CLOCK_S:
            yield Finding("clock", WARNING, f"{there}: its server's clock is {written - time.time():+.0f} s off")


def _network(plan: Plan[Any]) -> Iterator[Finding]:
    """Hub, judge and generator, where the run may ask them; no network is a warning, files may be there already."""
    local = {"dataset.hub": value_at(plan.record, "dataset.path"), "model.path": None}
    values = {key: value_at(plan.record, key) for key in local if not local[key]}
    from_hub = [key for key, value in values.items() if value and not Path(value).exists()]
    if from_hub:
        yield from _hub(", ".join(from_hub))
    match plan.judge:
        case OpenAIJudgeConfig(base_url=url) if plan.judges:
            yield _endpoint("judge", url)
    match plan.generator:
        case ServerGeneratorConfig(base_url=url) if plan.samples or plan.algorithm.uses.data in ("requests", "prompts"):
            yield _endpoint("generator", url)


def _hub(keys: str) -> Iterator[Finding]:
    address = os.environ.get("HF_ENDPOINT", _HUB)
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        yield Finding("hub", WARNING, f"HF_HUB_OFFLINE is set: {keys} must be in the hub's cache on this machine")
        return
    try:
        request = urllib.request.Request(address, method="HEAD")
        with urllib.request.urlopen(request, timeout=NETWORK_S) as answer:
            date = answer.headers.get("Date")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        yield Finding("hub", WARNING, f"{address} does not answer ({reason}); {keys} must be in the hub's cache")
        return
    yield Finding("hub", OK, f"{address} answers ({keys})")
    with contextlib.suppress(TypeError, ValueError):
        off = time.time() - email.utils.parsedate_to_datetime(date).timestamp()
        yield Finding("clock", OK if abs(off) < CLOCK_S else WARNING, f"{off:+.0f} s beside the hub's")


def _endpoint(name: str, url: str) -> Finding:
    """Whether something listens where a judge or a generator should be; nothing is asked, and no key is sent."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=NETWORK_S).close()
    except OSError as error:
        return Finding(name, FAILS, f"{url}: {error.strerror or error}; start it, or give another {name}.base_url")
    return Finding(name, OK, f"{url}: listens")


def model_bytes(plan: Plan[Any]) -> int | None:
    """Bytes of the base model's weights in memory; None where it is not on this machine."""
    match plan.model.settings:
        case PretrainedConfig(path=path, quantization=quantization):
            files = list(Path(str(path)).glob("*.safetensors")) or list(Path(str(path)).glob("*.bin"))
            stored = sum(file.stat().st_size for file in files)
            return (stored // 4 if quantization else stored) or None
    return 4 * _parameters(plan.record["model"]["architecture"])


def trained_weights(plan: Plan[Any]) -> int | None:
    """Weights of the LoRA that the run trains, on all linear layers; None where the model's shape is not known."""
    shape: dict[str, Any] = plan.record["model"].get("architecture") or {}
    path = value_at(plan.record, "model.path")
    if path and (Path(path) / "config.json").is_file():
        shape = read_json(Path(path) / "config.json")
    hidden, layers, inner = (shape.get(key) for key in ("hidden_size", "num_hidden_layers", "intermediate_size"))
    if not (isinstance(hidden, int) and isinstance(layers, int) and isinstance(inner, int)):
        return None
    return int(plan.recipe.peft.r) * layers * (8 * hidden + 3 * (hidden + inner))


def _parameters(shape: dict[str, Any]) -> int:
    hidden, inner = int(shape["hidden_size"]), int(shape["intermediate_size"])
    layer = 4 * hidden**2 + 3 * hidden * inner
    return int(shape["num_hidden_layers"]) * layer + 2 * int(shape["vocab_size"]) * hidden


def _size(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):,.1f} GiB" if num_bytes >= 1 << 30 else f"{num_bytes / (1 << 20):,.0f} MiB"
