"""What every trainer shares: the recipe as transformers' arguments, resuming, stopping, the progress bar."""

import hashlib
import itertools
import json
import math
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import PrinterCallback, TrainerCallback

from alignlab.config.schema import HardwareConfig, TrainerConfig
from alignlab.io.atomic import write_json
from alignlab.runs.progress import Bar, progress, say
from alignlab.training.sharding import whole

NUM_CHECKPOINTS_KEPT = 2
SEAL = "sealed.json"
"""A checkpoint's files and their hashes, written when all of them are there."""


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Moves a progress bar by optimizer steps."""

    def __init__(self, bar: Bar) -> None:
        self.bar = bar
        self.seen = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Advances to the global step; a resumed run starts where it stopped."""
        self.bar.advance(state.global_step - self.seen)
        self.seen = state.global_step


class StopAtNonsense(TrainerCallback):  # type: ignore[misc]
    """Stops at a gradient that is not finite; transformers would train on.

    On a CPU that is before it reaches the weights. A GPU would have to be waited for at every step; there it is before
    the next log line, and before weights that it reached count as saved.

    Args:
        at_once: look at every step.

    Raises:
        FloatingPointError: naming the optimizer step.
    """

    def __init__(self, *, at_once: bool = True) -> None:
        self.at_once = at_once
        self._norms: list[tuple[int, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """Notes the summed and clipped gradient's norm; a loss that is not a number has made it so too."""
        trained = itertools.chain.from_iterable(group["params"] for group in optimizer.param_groups)
        gradients = [weights.grad for weights in trained if weights.grad is not None]
        if gradients:
            self._norms.append((state.global_step + 1, whole(torch.nn.utils.get_total_norm(gradients))))
        if self.at_once:
            self._look()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """A loss can be infinite where its gradient is not."""
        self._look()
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise FloatingPointError(f"step {state.global_step}: the loss is {loss}")

    def on_save(self, *_: Any, **__: Any) -> None:
        """Comes before the checkpoint is sealed."""
        self._look()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """The last steps have no log line of their own."""
        self._look()

    def _look(self) -> None:
        norms, self._norms = self._norms, []
        for step, norm in norms:
            if not torch.isfinite(norm):
                raise FloatingPointError(f"step {step}: the gradient is not finite")


class SealCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Says of a checkpoint that it is whole: transformers writes its files one by one, and a crash may come between."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Hashes the files once every process has written its own."""
        self.engine.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(folder / SEAL, _hashes(folder))


class OrderOfEpoch(TrainerCallback):  # type: ignore[misc]
    """Tells the rows' order which epoch it is.

    accelerate does, but for several processes that go on in the middle of an epoch: they would take the first epoch's
    order, and so some rows twice and others never.
    """

    def __init__(self, order: "WholeBatches") -> None:
        self.order = order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Comes before the epoch's first row is drawn, also in an epoch that was begun before."""
        self.order.set_epoch(int(state.epoch or 0))


class WholeBatches(Sampler[int]):
    """Row numbers in an order of each epoch's own: whole ranked sets, in batches of exactly the size asked.

    Sets come in random order, each at once, so that its responses are computed once. A set that no longer fits the
    batch waits for the next one, and a later one takes its place if one of the next LOOK_AHEAD fits; else the set is
    cut, as is one that is larger than a batch. Where each row is its own set this is the plain random order.

    The last batch is filled up from the order's beginning: one process would end an epoch on a short batch, several
    fill it up each in its own way. Filled up for all of them, the steps are the same on any number of processes.

    Args:
        sets: for each row of the data, what the rows of its set share.
        batch_size: rows of an optimizer step, over all processes and forwards.
        seed: with the epoch's number it makes the order.
    """

    LOOK_AHEAD = 32

    def __init__(self, sets: Sequence[int], *, batch_size: int, seed: int) -> None:
        self.members: dict[int, list[int]] = {}
        for row, number in enumerate(sets):
            self.members.setdefault(number, []).append(row)
        self.num_rows, self.batch_size, self.seed, self.epoch = len(sets), batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Sets which epoch's order is next; see OrderOfEpoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_rows // self.batch_size) * self.batch_size

    def __iter__(self) -> Iterator[int]:
        draw = torch.Generator().manual_seed(self.seed + self.epoch)
        sets = list(self.members.values())
        waiting = deque(sets[place] for place in torch.randperm(len(sets), generator=draw).tolist())
        order: list[int] = []
        while waiting:
            order += self._next(waiting, self.batch_size - len(order) % self.batch_size)
        yield from itertools.islice(itertools.cycle(order), len(self))

    def _next(self, waiting: deque[list[int]], room: int) -> list[int]:
        """The next set that fits the room, or as much of the first one as does."""
        near = range(min(len(waiting), self.LOOK_AHEAD))
        place = next((place for place in near if len(waiting[place]) <= room), 0)
        rows = waiting[place]
        del waiting[place]
        if len(rows) > room:
            waiting.appendleft(rows[room:])
        return rows[:room]


def run_trainer(engine: Any, checkpoints: Path) -> None:
    """Trains to the end under a progress bar, from the newest checkpoint if there is one.

    Raises:
        FloatingPointError: if loss or gradient is not finite; names the step.
    """
    engine.remove_callback(PrinterCallback)
    resumed = last_whole_checkpoint(checkpoints)
    if resumed and _is_at_the_end(resumed):
        engine._load_from_checkpoint(resumed)  # train() would take one step more: it looks for the end after a step
        return
    if resumed:
        say(f"goes on from {resumed}")
    with progress("training", _num_steps(engine)) as bar:
        at_once = engine.args.device.type == "cpu"
        for callback in (ProgressCallback(bar), StopAtNonsense(at_once=at_once), SealCheckpoints(engine)):
            engine.add_callback(callback)
        engine.train(resume_from_checkpoint=resumed)


def last_whole_checkpoint(checkpoints: Path) -> str | None:
    """The newest checkpoint whose files are what was sealed; a damaged one is passed over, and said so."""
    found = sorted(checkpoints.glob("checkpoint-*"), key=lambda folder: -int(folder.name.rpartition("-")[2]))
    for folder in found:
        damage = _damage(folder)
        if damage is None:
            return str(folder)
        say(f"{folder}: {damage}; not used")
    return None


def _is_at_the_end(checkpoint: str) -> bool:
    state = json.loads((Path(checkpoint) / "trainer_state.json").read_text())
    return bool(state["global_step"] >= state["max_steps"])


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        sealed = json.loads((folder / SEAL).read_text())
    except (OSError, ValueError):
        return "was not written to its end"
    present = _hashes(folder)
    wrong = sorted(name for name, digest in sealed.items() if present.get(name) != digest)
    return f"{wrong[0]} is damaged" if wrong else None


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a checkpoint but the seal itself."""
    hashes = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL):
        with file.open("rb") as stream:
            hashes[str(file.relative_to(folder))] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes


def _num_steps(engine: Any) -> int:
    arguments = engine.args
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    per_step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    steps_per_epoch = math.ceil(len(engine.train_dataset) / per_step)
    epochs: float = arguments.num_train_epochs
    steps: int = math.ceil(steps_per_epoch * epochs)
    return max(1, steps)


def training_arguments(trainer: TrainerConfig, hardware: HardwareConfig, *, seed: int) -> dict[str, Any]:
    """Transformers' training arguments, for one process."""
    return {
        "learning_rate": trainer.learning_rate,
        "num_train_epochs": trainer.num_train_epochs,
        "max_steps": trainer.max_steps,
        "per_device_train_batch_size": trainer.per_device_train_batch_size,
        "gradient_accumulation_steps": trainer.gradient_accumulation_steps,
        "lr_scheduler_type": trainer.lr_scheduler_type,
        "warmup_steps": trainer.warmup_ratio,  # transformers 5 reads a fraction as a share of all steps
        "weight_decay": trainer.weight_decay,
        "max_grad_norm": trainer.max_grad_norm,
        "gradient_checkpointing": trainer.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": trainer.save_steps,
        "save_total_limit": NUM_CHECKPOINTS_KEPT,
        "logging_steps": trainer.logging_steps,
        "logging_nan_inf_filter": False,
        "bf16": hardware.bf16 and not hardware.fsdp,  # it would round norms and summed gradients of shared weights
        "fsdp": hardware.fsdp,
        "accelerator_config": {"non_blocking": hardware.device == "cuda"},  # the next batch is laid out meanwhile
        "use_cpu": hardware.device == "cpu",
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "disable_tqdm": True,
    }
