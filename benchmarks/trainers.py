"""alignlab's training and TRL's own DPOTrainer on one workload, measured in this process.

TRL is given its best settings: tokens ready-made, reference precomputed, its fused head (always on), no padding to a
fixed width. Both get the same rows in the same order, the same batches, optimiser and initial adapter, and write a log
line every ten steps, which is both sides' default; the losses are taken from the steps themselves.
"""

import resource
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments
from trl import DPOConfig, DPOTrainer

from alignlab.config.schema import PeftConfig
from alignlab.engine.cache.scores import ScoreCache
from alignlab.engine.scoring.logps import response_logps
from alignlab.models.adapters import lora_config
from alignlab.runs.runner import load_job
from alignlab.training.losses import PreferenceLoss
from alignlab.training.preference import PreferenceTrainer
from benchmarks.shapes import Workload

PARTS = ("batches", "forward", "backward", "optimizer", "rest")


@dataclass(frozen=True)
class Recipe:
    """How both are trained."""

    lora: PeftConfig
    device: str = "cpu"
    bf16: bool = False
    learning_rate: float = 5e-4
    gradient_checkpointing: bool = False
    parts: bool = True
    """Time the parts of a step; on a GPU each part then waits for the device, which costs a little."""

    def settings(self, folder: str, work: Workload) -> DPOConfig:
        """TRL's form; nothing but what is said here differs from TRL's defaults."""
        return DPOConfig(**self._shared(folder, work), max_length=None, precompute_ref_log_probs=True)

    def arguments(self, folder: str, work: Workload) -> TrainingArguments:
        """The same for alignlab."""
        return TrainingArguments(**self._shared(folder, work))

    def _shared(self, folder: str, work: Workload) -> dict[str, Any]:
        return {
            "output_dir": folder,
            "per_device_train_batch_size": work.batch_size,
            "num_train_epochs": 1,
            "learning_rate": self.learning_rate,
            "gradient_checkpointing": self.gradient_checkpointing,
            "logging_steps": 10,
            "save_strategy": "no",
            "train_sampling_strategy": "sequential",  # a request's pairs lie together, for both kinds
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": self.device == "cpu",
            "bf16": self.bf16,
            "seed": 0,
            "data_seed": 0,
        }


def one_run(kind: str, work: Workload, model: Any, recipe: Recipe) -> dict[str, Any]:
    """Reference pass and training of one kind: seconds, losses, seconds of each step and part, peak memory in MiB."""
    model = model.to(recipe.device)
    if recipe.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        measured = (_alignlab if kind == "alignlab" else _trl)(work, model, folder, recipe)
    return measured | {"memory": peak_memory(recipe.device)}


def peak_memory(device: str) -> float:
    """MiB: of the GPU's allocator, or of the whole process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _alignlab(work: Workload, model: Any, folder: str, recipe: Recipe) -> dict[str, Any]:
    def score(rows: Any) -> Any:
        return response_logps(model, rows, batch_size=2 * work.batch_size, label="reference", autocast=recipe.bf16)

    load_job("dpo")  # sets the process up, as for every run
    start = _now(recipe)
    logps = ScoreCache(Path(folder) / "scores").scores("reference", work.responses(), score, name="reference")
    reference = _now(recipe) - start
    chosen, rejected = logps.chunk(2)
    rows = work.table().add_column("ref_chosen_logps", chosen.tolist())
    engine = PreferenceTrainer(
        model=model,
        args=recipe.arguments(folder, work),
        rows=rows.add_column("ref_rejected_logps", rejected.tolist()),
        loss=PreferenceLoss("sigmoid", beta=0.1),
        lora=lora_config(recipe.lora, model),
    )
    return _train(engine, start, reference, recipe)


def _trl(work: Workload, model: Any, folder: str, recipe: Recipe) -> dict[str, Any]:
    spent: list[float] = []

    class Ready(DPOTrainer):  # type: ignore[misc]
        """TRL's trainer on ready-made tokens, with its reference pass timed."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, *given: Any, **named: Any) -> Any:
            begin = _now(recipe)
            rows = super()._precompute_ref_logps(*given, **named)
            spent.append(_now(recipe) - begin)
            return rows

    start = _now(recipe)
    rows = work.table()
    rows._fingerprint = uuid.uuid4().hex  # TRL keeps its reference on disk; every run here computes its own
    engine = Ready(
        model=model,
        args=recipe.settings(folder, work),
        train_dataset=rows,
        processing_class=work.tokenizer,
        peft_config=lora_config(recipe.lora, model),
    )
    return _train(engine, start, sum(spent), recipe)


def _train(engine: Any, start: float, reference: float, recipe: Recipe) -> dict[str, Any]:
    clock = StepClock(lambda: _now(recipe))
    engine.add_callback(clock)
    ready, cpu = _now(recipe), time.process_time()
    if recipe.parts:
        clock.take_parts(engine)
    losses = losses_of(engine)
    engine.train()
    end, cpu = _now(recipe), time.process_time() - cpu
    training = end - ready
    return {
        "reference": reference,
        "training": training,
        "cpu": cpu,
        "end_to_end": end - start,
        "losses": torch.stack(losses).tolist(),
        "steps": clock.steps,
        "parts": clock.parts | {"rest": training - sum(clock.parts.values())} if recipe.parts else None,
    }


class StepClock(TrainerCallback):  # type: ignore[misc]
    """Seconds of every optimizer step, and of the parts of all steps together."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.steps: list[float] = []
        self.parts: dict[str, float] = {}
        self._began = self._marked = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """The first step's batch is built before its step begins, so steps are counted from end to end."""
        self._began = self.now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Ends a step."""
        now = self.now()
        self.steps.append(now - self._began)
        self._began = now

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Clipping and the optimizer lie between the backward pass and this."""
        if self._marked:
            self._add("optimizer", self._marked)

    def take_parts(self, engine: Any) -> None:
        """Times what the trainer does with batches, forward and backward, from now on."""
        self.parts = dict.fromkeys(PARTS[:-1], 0.0)
        engine.data_collator = self._timed("batches", engine.data_collator)
        engine.compute_loss = self._timed("forward", engine.compute_loss)
        engine.accelerator.backward = self._timed("backward", engine.accelerator.backward)

    def _timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            begin = self.now()
            result = call(*given, **named)
            self._add(part, begin)
            self._marked = self.now()
            return result

        return timed

    def _add(self, part: str, begin: float) -> None:
        self.parts[part] += self.now() - begin


def losses_of(engine: Any) -> list[torch.Tensor]:
    """The loss of every step to come, where the model is: to fetch them would make a GPU wait."""
    losses: list[torch.Tensor] = []
    step = engine.training_step

    def training_step(*given: Any, **named: Any) -> torch.Tensor:
        losses.append(step(*given, **named).detach())
        return losses[-1]

    engine.training_step = training_step
    return losses


def _now(recipe: Recipe) -> float:
    if recipe.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
