"""Which of several nodes this process runs on, and where the first one is, by Slurm's or torchrun's variables."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from alignlab.errors import ConfigError

RANKS = {"NODE_RANK": None, "GROUP_RANK": "LOCAL_RANK", "SLURM_NODEID": "SLURM_LOCALID"}
"""Variables of a node's rank, the first that is set counts -> the task's rank on its node."""
COUNTS = ("NNODES", "GROUP_WORLD_SIZE", "SLURM_STEP_NUM_NODES", "SLURM_JOB_NUM_NODES", "SLURM_NNODES")
LISTS = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
"""Slurm's names of the nodes, in short: gpu[01-04,09]."""
PORT = 29400
"""Where neither MASTER_PORT nor a Slurm job's number gives one."""
SLURM_PORTS = (20000, 10000)
"""First port and number of ports among which a Slurm job's number chooses."""
_START = (
    "start the same command on every node: srun --ntasks-per-node=1, "
    "or with NODE_RANK=0, 1, ... and MASTER_ADDR=HOST of node 0"
)


@dataclass(frozen=True)
class Place:
    """This process among the nodes of a run."""

    nodes: int
    rank: int
    """0 runs the job; the others train with it."""
    address: str
    """Of node 0."""
    port: int
    """On which node 0 listens."""


def place_of(nodes: int, variables: Mapping[str, str] = os.environ) -> Place:
    """The place that the environment's variables give this process.

    Args:
        nodes: hardware.nodes.
        variables: the environment.

    Raises:
        ConfigError: if one is missing, or says something else than hardware.nodes.
    """
    set_ = {name: value for name, value in variables.items() if value}
    name = next((name for name in RANKS if name in set_), None)
    if name is None:
        raise ConfigError(f"hardware.nodes={nodes}: nothing says which node this is; {_START}")
    task = RANKS[name]
    if task is not None and set_.get(task, "0") != "0":
        what = f"{task}={set_[task]} is a second task on its node; start one, alignlab starts the processes itself"
        raise ConfigError(f"hardware.nodes={nodes}: {what}")
    count = next((name for name in COUNTS if name in set_), None)
    if count is not None and set_[count] != str(nodes):
        raise ConfigError(f"hardware.nodes={nodes}: {count} says {set_[count]}; both must be the same")
    rank = _number(nodes, name, set_[name], most=nodes - 1)
    address = set_.get("MASTER_ADDR") or first_of(next((set_[name] for name in LISTS if name in set_), ""))
    if not address:
        raise ConfigError(f"hardware.nodes={nodes}: nothing says where node 0 is; {_START}")
    return Place(nodes, rank, address, _port(nodes, set_))


def first_of(nodes: str) -> str:
    """The first name of a Slurm list: gpu07 of `gpu[07-09,12],cpu1`."""
    first = re.match(r"(?:[^,\[\]]|\[[^\]]*\])*", nodes)
    assert first is not None  # it matches nothing, too
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0])


def _port(nodes: int, variables: Mapping[str, str]) -> int:
    """Of node 0: MASTER_PORT, or the next one where torchrun itself holds that; else by the Slurm job's number."""
    if "MASTER_PORT" in variables:
        given = _number(nodes, "MASTER_PORT", variables["MASTER_PORT"], most=65534)
        return given + 1 if "TORCHELASTIC_RUN_ID" in variables else given
    job = variables.get("SLURM_JOB_ID", "")
    first, count = SLURM_PORTS
    return first + int(job) % count if job.isdecimal() else PORT


def _number(nodes: int, name: str, value: str, *, most: int) -> int:
    """A variable's number.

    Args:
        nodes: hardware.nodes.
        name: of the variable.
        value: its value.
        most: largest that is allowed.
    """
    if not value.isdecimal() or int(value) > most:
        raise ConfigError(f"hardware.nodes={nodes}: {name}={value} must be a number from 0 to {most}")
    return int(value)
