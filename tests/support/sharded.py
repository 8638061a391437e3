"""What test_sharding trains, on one process, and on two that share the weights out (FSDP2), on a CPU.

accelerate shares weights out among GPUs only, so it is told that the processes have some. All else is as on a GPU.
"""

import dataclasses
import gc
import json
import math
import os
import shutil
import socket
from contextlib import suppress
from types import SimpleNamespace

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from alignlab.config.schema import HardwareConfig, PeftConfig, TrainerConfig
from alignlab.models.scratch import word_tokenizer
from alignlab.training.losses import PreferenceLoss
from alignlab.training.preference import train_preference
from support.against_trl import model_of, own_references, table_of
from support.pairs_of_tokens import plain_pairs, ranked_pairs

RECIPE = TrainerConfig(
    learning_rate=5e-3,
    num_train_epochs=1.0,
    max_steps=4,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=5,
    max_tokens_per_forward=None,
    sets_per_step=None,
    per_device_eval_batch_size=8,
    max_length=64,
    lr_scheduler_type="linear",
    warmup_ratio=0.0,
    weight_decay=0.0,
    max_grad_norm=1.0,
    gradient_checkpointing=False,
    save_steps=3,  # in the middle of the second epoch
    logging_steps=1,
)
PEFT = PeftConfig(r=3, alpha=8.0, dropout=0.0, target_modules="all-linear")
"""Of an odd rank: two processes cannot halve it."""
ONE = HardwareConfig(device="cpu", processes=1, nodes=1, bf16=False, fsdp=False)


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained."""

    data: str = "ranked"
    checkpointing: bool = False
    family: str = "llama"
    bf16: bool = False
    shape: dict = dataclasses.field(default_factory=dict)
    is_spoilt: bool = False

    def model(self):
        """The base; in bfloat16 it is so by its weights and by autocast."""
        return model_of(self.family, **self.shape).to(torch.bfloat16 if self.bf16 else torch.float32)

    def table(self):
        """The pairs, or ten each of two ranked sets; spoilt ones have references that are no numbers."""
        rows = table_of(plain_pairs()) if self.data == "pairs" else table_of(ranked_pairs(), sets=[0] * 10 + [1] * 10)
        rows = own_references(model_of(self.family, **self.shape), rows)
        if self.is_spoilt:
            rows = rows.remove_columns("ref_chosen_logps").add_column("ref_chosen_logps", [math.nan] * len(rows))
        return rows


LAYERS = 8
DEEP = Case("pairs", shape={"num_hidden_layers": LAYERS, "hidden_size": 128, "intermediate_size": 256})
"""Most of its memory is weights, and most of those are in its layers."""
RANKED = Case()
CASES = {
    "pairs": Case("pairs"),
    "ranked": RANKED,
    "pairs, checkpointed": Case("pairs", checkpointing=True),
    "ranked, checkpointed": Case(checkpointing=True),
    "tied": Case(family="llama-tied"),
}
HALF = Case(bf16=True)


class Watch(TrainerCallback):
    """What a training shows from outside; may break it before a step."""

    def __init__(self, *, break_at=None):
        self.break_at = break_at
        self.losses, self.norms, self.shared = [], [], None

    def on_step_begin(self, args, state, control, model=None, **_):
        weights = list(model.parameters())
        self.shared = sum(isinstance(value, DTensor) for value in weights) / len(weights)
        if state.global_step == self.break_at:
            raise KeyboardInterrupt

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.losses.append(logs["loss"])
            self.norms.append(logs["grad_norm"])


class Scales(Watch):
    """Weighs one step: what the process holds between steps, and at most in a layer, forward or backward."""

    def __init__(self):
        super().__init__()
        self.rest, self.peak = 0, 0
        gc.freeze()  # what is there already need not be weighed

    def on_step_begin(self, args, state, control, model=None, **named):
        super().on_step_begin(args, state, control, model=model, **named)
        self.rest = held()
        for module in model.modules():
            if type(module).__name__ == "LlamaMLP":
                module.register_forward_pre_hook(self._look)
                module.register_full_backward_pre_hook(self._look)

    def _look(self, *_):
        self.peak = max(self.peak, held())

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop = True


def held():
    """Bytes of all tensors that Python knows of."""
    tensors = [found for found in gc.get_objects() if type(found) in (torch.Tensor, torch.nn.Parameter)]
    storages = {found.untyped_storage().data_ptr(): found.untyped_storage().nbytes() for found in tensors}
    return sum(storages.values())


def train(folder, case, watch=None, *, hardware=ONE, seed=0):
    """Four steps of ten pairs in forwards of two; returns what was watched."""
    watch = watch or Watch()
    hardware = dataclasses.replace(hardware, bf16=case.bf16)
    train_preference(
        SimpleNamespace(model=case.model(), tokenizer=word_tokenizer([])),
        case.table(),
        PreferenceLoss("sigmoid", beta=0.1),
        trainer=dataclasses.replace(RECIPE, gradient_checkpointing=case.checkpointing),
        peft=PEFT,
        hardware=hardware,
        seed=seed,
        folder=folder,
        callbacks=[watch],
    )
    return watch


class Shared(HardwareConfig):
    """Two processes that share weights out. Unchecked, since a user may ask for it on GPUs only."""

    def __post_init__(self):
        pass


def train_shared(folder, case, watch=None, *, fsdp=True, seed=0):
    """The same with another process."""
    AcceleratorState._reset_state()
    return train(folder, case, watch, hardware=Shared("cpu", 2, 1, bf16=False, fsdp=fsdp), seed=seed)


def pretend_to_have_gpus():
    """Makes accelerate take the way of processes with GPUs."""
    real = PartialState.__init__

    def init(self, *given, **named):
        real(self, *given, **named)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = init


def resume(folder, *, is_first):
    """One that is broken off, goes on, and finds at last that it had ended; one that a single process began."""
    with suppress(KeyboardInterrupt):
        train_shared(folder / "broken", RANKED, Watch(break_at=3))
    if is_first:
        shutil.copytree(folder / "broken", folder / "left to one")
    for _ in ("to the end", "with nothing left to do"):
        train_shared(folder / "broken", RANKED)
    train_shared(folder / "begun by one", RANKED)


def fail(folder):
    """What is said of references that are not numbers."""
    try:
        train_shared(folder, Case(is_spoilt=True))
    except FloatingPointError as error:
        return str(error)


def free_port():
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def work(rank, folder, port):
    """One process: every case, and for control processes that share nothing, and such as disagree."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)  # threads do not outlive a fork
    told = {"apart": train_shared(folder / "apart", HALF, fsdp=False)}
    pretend_to_have_gpus()
    told |= {name: train_shared(folder / name, case) for name, case in CASES.items()}
    told |= {"half": train_shared(folder / "half", HALF), "deep": train_shared(folder / "deep", DEEP, Scales())}
    told |= {"at odds": train_shared(folder / "at odds", RANKED, seed=rank)}
    resume(folder, is_first=rank == 0)
    failure = fail(folder / "fails")
    if rank == 0:
        seen = {name: vars(watch) for name, watch in told.items()}
        (folder / "told.json").write_text(json.dumps({**seen, "failure": failure}))
