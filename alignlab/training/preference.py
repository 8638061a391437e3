"""Training on preference pairs: transformers' Trainer with our loss, batches and metrics.

What happens in a step: `StepCollator` packs the step's pairs into forwards; each forward's log-probabilities come from
`score_batch`, its loss from `losses.PreferenceLoss` with the cached reference (and tilt) of the rows; gradients add up
over the forwards, so that a step is the mean over exactly its pairs.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from alignlab.config.batches import share_batch
from alignlab.config.schema import HardwareConfig, PeftConfig, TrainerConfig
from alignlab.engine.memory import token_budget
from alignlab.engine.models import device_of
from alignlab.engine.scoring.forward import LOGGED_FIELDS, engine_layers, fused_head, score_batch
from alignlab.engine.scoring.probe import detect_batch_layout
from alignlab.models.adapters import detach_adapter, load_weights, lora_config, save_adapter
from alignlab.models.base import Base
from alignlab.runs.progress import say
from alignlab.training.callbacks import diverged
from alignlab.training.collate import PAIR_WEIGHT, REFERENCES, TILTS, StepCollator
from alignlab.training.loop import run_trainer, training_arguments, turn_off_dropout
from alignlab.training.losses import PairLogps, PreferenceLoss, chosen_nll
from alignlab.training.meter import Meter
from alignlab.training.sampler import GroupedBatchSampler, SetEpoch
from alignlab.training.sharding import UnshardedCheckpoints, trained_weights


class PreferenceTrainer(UnshardedCheckpoints, Trainer):  # type: ignore[misc]  # transformers is untyped here
    """transformers' Trainer on tokenised pairs that carry their reference log-probabilities.

    Columns: prompt_ids, chosen_ids, rejected_ids, ref_chosen_logps, ref_rejected_logps; optionally chosen_tilt and
    rejected_tilt (see `losses.reward_tilt`), pair_weight (multiplies the pair's loss), `set` (a number that the pairs
    of one ranked set share; without it each pair is its own set), `sft_from` (see `collate`) and `id` (names a row in
    error messages).

    Args:
        model: the frozen model; its own dropout is turned off, so that policy and reference are computed the same way.
        args: transformers' arguments; a batch is this process's whole part of an optimizer step.
        rows: the training rows.
        loss: what is minimised.
        lora: the adapter that is trained; None trains what requires a gradient.
        pairs_per_forward: pairs of one forward at most; None for no limit.
        tokens_per_forward: positions of one forward at most, in place of the number of pairs; None for no limit.
        memory_tokens: positions that fit into memory, beside the number of pairs; None for no limit.
        min_forwards: of a batch at least, where it has as many ranked sets.
        sets_per_step: ranked sets of an optimizer step, over all processes, whatever their number of pairs; None for
            a batch of pairs.
        autocast: compute in bfloat16 as the reference pass does, where args.bf16 does not.
        callbacks: told about logs and steps.
    """

    collator_class = StepCollator

    def __init__(
        self,
        *,
        model: Any,
        args: TrainingArguments,
        rows: Dataset,
        loss: PreferenceLoss,
        lora: LoraConfig | None = None,
        pairs_per_forward: int | None = None,
        tokens_per_forward: int | None = None,
        memory_tokens: int | None = None,
        min_forwards: int = 1,
        sets_per_step: int | None = None,
        autocast: bool = False,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.loss, self.autocast, self.sets_per_step = loss, autocast, sets_per_step
        self.batch_layout = detect_batch_layout(model, longest=_longest(rows), autocast=autocast or args.bf16)
        self.meter = Meter(loss)
        self.step_losses: list[tuple[list[str], Tensor]] = []
        """Ids and losses of the pairs of each forward of the step at hand."""
        collator = self.collator_class(
            self.batch_layout,
            pairs_per_forward,
            tokens_per_forward,
            memory_tokens,
            min_forwards=min_forwards,
            in_step=bool(args.fsdp),
        )
        turn_off_dropout(model)
        set_seed(args.seed)
        policy = model if lora is None else _with_new_adapter(model, lora, args)
        args.remove_unused_columns = False
        if "id" not in rows.column_names:
            rows = rows.add_column("id", [str(number) for number in range(len(rows))])
        super().__init__(model=policy, args=args, train_dataset=rows, data_collator=collator, callbacks=list(callbacks))

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of whole ranked sets, in an order of each epoch's own; in the rows' order if args ask for that."""
        arguments, rows = self.args, self.train_dataset
        batches: Any = BatchSampler(SequentialSampler(rows), arguments.train_batch_size, drop_last=False)
        if arguments.train_sampling_strategy != "sequential":
            batches = self._batches()
            self.add_callback(SetEpoch(batches))
        loader: DataLoader[Any] = DataLoader(
            rows, batch_sampler=batches, collate_fn=self.data_collator, pin_memory=arguments.dataloader_pin_memory
        )
        return self.accelerator.prepare(loader)  # type: ignore[no-any-return]

    def _batches(self) -> GroupedBatchSampler:
        """The batches of every epoch; says how many ranked sets a step has where there are any."""
        rows, processes = self.train_dataset, self.args.world_size
        batches = GroupedBatchSampler(
            rows["set"] if "set" in rows.column_names else range(len(rows)),
            rows_per_step=self.args.train_batch_size * processes,
            seed=self.args.data_seed,
            sets_per_step=self.sets_per_step,
            parts=processes,
        )
        if len(batches.members) < len(rows) and self.is_world_process_zero():
            pairs = len(rows) / len(batches.members)
            say(f"{batches.sets_in_a_step():.1f} ranked sets an optimizer step, {pairs:.1f} pairs a set")
        return batches

    def train(self, *given: Any, **named: Any) -> Any:
        """Train with the engine's attention and LoRA layers."""
        with engine_layers(self.model, self.batch_layout):
            return super().train(*given, **named)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One batch's gradient and loss.

        Args:
            model: the policy.
            inputs: one batch, as the collator made it.
            num_items_in_batch: transformers' own, passed on; the loss is weighted by pairs.
        """
        self.step_losses = []
        self.meter.begin_step(self.accelerator.device)
        return self._backward(model, self._weighted(inputs["forwards"]), num_items_in_batch)

    def _backward(self, model: Any, forwards: list[dict[str, Any]], num_items_in_batch: Any) -> Tensor:
        """The gradient and the loss, forward by forward; processes exchange gradients after the last."""
        total = torch.zeros((), device=self.accelerator.device)
        for number, forward in enumerate(forwards, start=1):
            is_last = number == len(forwards)
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(model):
                total += super().training_step(model, forward, num_items_in_batch)
        return total

    def _weighted(self, forwards: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Forwards reweighted so that every pair counts the same: with whole sets, processes hold different numbers."""
        if self.sets_per_step is None or self.args.world_size == 1:
            return forwards
        own = torch.tensor(float(sum(len(forward["ids"]) for forward in forwards)), device=self.accelerator.device)
        mean = self.accelerator.reduce(own.clone(), "mean")
        return [{**forward, "weight": forward["weight"] * own / mean} for forward in forwards]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The loss of one forward, times its fraction of the batch's pairs.

        Args:
            model: the policy.
            inputs: of one forward.
            return_outputs: must be false.
            num_items_in_batch: unused: the batch counts pairs.
        """
        device = self.accelerator.device
        precision = torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.autocast)
        fields = LOGGED_FIELDS if self._logs_after_this_step() else ("log_probs",)
        with precision, fused_head(model, fields):
            outputs = score_batch(model, inputs["layout"].to(device))
        pairs, tilts = self._against_reference(outputs.log_probs, inputs)
        losses_P = self.loss.per_pair(pairs if tilts is None else pairs.tilted(*tilts))
        self.meter.add(outputs, pairs, tilts, losses_P, inputs["num_tokens"])
        if PAIR_WEIGHT in inputs:
            losses_P = inputs[PAIR_WEIGHT] * losses_P
        if self.loss.sft_weight:
            chosen_PT = outputs.log_probs.chunk(2)[0]
            losses_P = losses_P + self.loss.sft_weight * chosen_nll(
                chosen_PT, inputs["sft_starts"], inputs["sft_counts"]
            )
        self.step_losses.append((inputs["ids"], losses_P.detach()))
        loss: Tensor = inputs["weight"] * losses_P.mean()
        return loss

    def _against_reference(
        self, log_probs_BT: Tensor, inputs: dict[str, Any]
    ) -> tuple[PairLogps, tuple[Tensor, Tensor] | None]:
        """A forward's pairs, and what tilts the references of chosen and rejected responses, nats, if anything does."""
        return pair_logps(log_probs_BT, inputs), (inputs[TILTS[0]], inputs[TILTS[1]]) if TILTS[0] in inputs else None

    def _logs_after_this_step(self) -> bool:
        return bool((self.state.global_step + 1) % self.args.logging_steps == 0)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the meter's figures to a log line; tokens count on from the line before, which a resumed run knows."""
        read = self.meter.read(self.accelerator)
        if read:
            lines = reversed(self.state.log_history)
            read["num_tokens"] += next((line["num_tokens"] for line in lines if "num_tokens" in line), 0.0)
        super().log(logs | read, start_time)

    def divergence(self) -> str | None:
        """What is wrong with the policy at the end, or None: means over the pairs of the last half of the steps.

        After a resumed run these are of the steps since, which alone the meter has seen.
        """
        late = self.meter.steps[len(self.meter.steps) // 2 :]
        if not late:
            return None
        pairs, *sums = (sum(column) for column in zip(*late, strict=True))
        loss, untrained, rise = (total / pairs for total in sums)
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        if rise < -math.log(vocabulary):
            return f"even the likelier response of a pair lost {-rise:.3g} nats a token"
        return diverged(loss, untrained)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: transformers' estimate knows no shared prefixes."""
        return 0


def pair_logps(log_probs_BT: Tensor, inputs: dict[str, Any]) -> PairLogps:
    """Log-probabilities of chosen and rejected responses, summed in float64, and the rows' references."""
    chosen_P, rejected_P = log_probs_BT.double().sum(dim=1).chunk(2)
    given = (*REFERENCES, "chosen_lengths", "rejected_lengths")
    return PairLogps(chosen_P, rejected_P, *(inputs[name] for name in given))


def _with_new_adapter(model: Any, lora: LoraConfig, args: TrainingArguments) -> Any:
    """The model with a float32 adapter; one on 4-bit weights is bfloat16, as QLoRA's authors and TRL have it."""
    policy = get_peft_model(model, lora)
    if args.gradient_checkpointing:
        policy.enable_input_require_grads()
    if getattr(model, "is_loaded_in_4bit", False):
        for weights in policy.parameters():
            if weights.requires_grad:
                weights.data = weights.data.to(torch.bfloat16)
    return policy


def _memory_tokens(model: Any, hardware: HardwareConfig) -> int | None:
    """Positions of one forward and backward on a CPU, whose larger batches take memory and are no faster.

    A GPU is filled as `trainer.per_device_train_batch_size` says: an estimate that is low would cost speed there.
    """
    return token_budget(model, backward=True) if device_of(model).type == "cpu" and not hardware.fsdp else None


def _longest(rows: Dataset) -> int:
    """Tokens of the longest row."""
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    prompts, chosen, rejected = (pc.list_value_length(rows.data.column(name)).to_numpy() for name in names)
    return int((prompts + np.maximum(chosen, rejected)).max())


def train_preference(
    base: Base,
    rows: Dataset,
    loss: PreferenceLoss,
    *,
    trainer: TrainerConfig,
    peft: PeftConfig,
    hardware: HardwareConfig,
    seed: int,
    folder: Path,
    callbacks: list[TrainerCallback],
    start: Path | None = None,
    make_trainer: Callable[..., PreferenceTrainer] = PreferenceTrainer,
) -> Path:
    """Train a LoRA adapter and return its folder, `folder/adapter`. A checkpoint in the folder is resumed.

    Args:
        base: the frozen base model; restored on return.
        rows: tokenised pairs with reference log-probabilities (see PreferenceTrainer).
        loss: what is minimised.
        trainer: the optimiser's settings.
        peft: the adapter.
        hardware: device and number of processes.
        seed: of adapter initialisation and row order.
        folder: the run folder.
        callbacks: told about logs and steps.
        start: folder of an adapter whose weights training starts from.
        make_trainer: makes the trainer.
    """
    checkpoints = folder / "checkpoints"
    arguments = training_arguments(trainer, hardware, seed=seed) | {
        "per_device_train_batch_size": share_batch(trainer, hardware),
        "gradient_accumulation_steps": 1,
    }
    hf_trainer = make_trainer(
        model=base.model,
        args=TrainingArguments(output_dir=str(checkpoints), **arguments),
        rows=rows,
        loss=loss,
        lora=lora_config(peft, base.model),
        pairs_per_forward=trainer.per_device_train_batch_size,
        tokens_per_forward=trainer.max_tokens_per_forward,
        memory_tokens=_memory_tokens(base.model, hardware),
        sets_per_step=trainer.sets_per_step,
        autocast=hardware.bf16 and hardware.fsdp,
        callbacks=callbacks,
    )
    assert hf_trainer.is_fsdp_enabled or not hardware.fsdp, "accelerate shards nothing where it sees no GPU"
    if start is not None:
        load_weights(hf_trainer.model, start)
    run_trainer(hf_trainer, checkpoints, step_losses=hf_trainer, divergence=hf_trainer.divergence)
    adapter = folder / "adapter"
    weights = trained_weights(hf_trainer.model) if hf_trainer.is_fsdp_enabled else None
    if hf_trainer.accelerator.is_main_process:
        save_adapter(hf_trainer.model, adapter, state_dict=weights)
    hf_trainer.accelerator.wait_for_everyone()
    detach_adapter(hf_trainer.accelerator.unwrap_model(hf_trainer.model))
    return adapter
