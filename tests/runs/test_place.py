"""Slurm's and torchrun's variables say which node this is and where the first one is; what is missing is named."""

import pytest

from alignlab.errors import ConfigError
from alignlab.runs.place import Place, first_of, place_of

BY_HAND = {"NODE_RANK": "1", "MASTER_ADDR": "first"}
SLURM = {
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_JOB_NODELIST": "gpu[07-09],cpu1",
    "SLURM_JOB_ID": "1234567",
}
TORCHRUN = {
    "GROUP_RANK": "0",
    "LOCAL_RANK": "0",
    "GROUP_WORLD_SIZE": "2",
    "MASTER_ADDR": "first",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "x",
}


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        (BY_HAND, Place(2, 1, "first", 29400)),
        (BY_HAND | {"MASTER_PORT": "3000", "NNODES": "2"}, Place(2, 1, "first", 3000)),
        (SLURM, Place(2, 1, "gpu07", 24567)),
        (SLURM | {"MASTER_ADDR": "10.0.0.1"}, Place(2, 1, "10.0.0.1", 24567)),
        (SLURM | {"SLURM_JOB_NUM_NODES": "8", "SLURM_STEP_NUM_NODES": "2"}, Place(2, 1, "gpu07", 24567)),
        (SLURM | {"NODE_RANK": "0"}, Place(2, 0, "gpu07", 24567)),
        (TORCHRUN, Place(2, 0, "first", 29501)),  # torchrun itself listens on 29500
    ],
)
def test_where_this_process_stands(variables, place):
    assert place_of(2, variables) == place


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {},
            "nothing says which node this is; start the same command on every node: srun",
        ),
        ({"NODE_RANK": "1"}, "nothing says where node 0 is"),
        (BY_HAND | {"NODE_RANK": "2"}, "NODE_RANK=2 must be a number from 0 to 1"),
        (BY_HAND | {"NODE_RANK": "x"}, "NODE_RANK=x must be a number from 0 to 1"),
        (BY_HAND | {"MASTER_PORT": "99999"}, "MASTER_PORT=99999 must be a number from 0 to 65534"),
        (BY_HAND | {"NNODES": "1:4"}, "NNODES says 1:4; both must be the same"),
        (SLURM | {"SLURM_JOB_NUM_NODES": "4"}, "SLURM_JOB_NUM_NODES says 4; both must be the same"),
        (SLURM | {"SLURM_LOCALID": "1"}, "SLURM_LOCALID=1 is a second task on its node"),
        (TORCHRUN | {"LOCAL_RANK": "3"}, "LOCAL_RANK=3 is a second task on its node"),
    ],
)
def test_what_does_not_fit_is_named(variables, said):
    with pytest.raises(ConfigError) as raised:
        place_of(2, variables)
    assert str(raised.value).startswith("hardware.nodes=2: ")
    assert said in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[07-09,12],cpu1", "gpu07"),
        ("gpu[07,09]", "gpu07"),
        ("node-a,node-b", "node-a"),
        ("rack[1-2]n[3-4].x", "rack1n3.x"),
        ("alone", "alone"),
        ("", ""),
    ],
)
def test_the_first_of_slurms_list(nodes, first):
    assert first_of(nodes) == first
