"""Training on preference pairs: a thin subclass of TRL's DPOTrainer that takes cached, tilted references."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer
from trl.trainer import dpo_trainer
from trl.trainer.utils import FusedCausalLMOutput, disable_dropout_in_model

from alignlab.config.batches import share_batch
from alignlab.config.schema import HardwareConfig, PeftConfig, TrainerConfig
from alignlab.engine.scoring.forward import LOGGED_FIELDS, computing, fused_head, score_layout
from alignlab.engine.scoring.probe import packing_of
from alignlab.models.adapters import lora_config, take_off
from alignlab.models.base import Base
from alignlab.training.collate import StepCollator
from alignlab.training.loop import OrderOfEpoch, WholeBatches, run_trainer, training_arguments
from alignlab.training.meter import Meter
from alignlab.training.sharding import WholeCheckpoints, trained_weights


@dataclass(frozen=True)
class PreferenceLoss:
    """What is minimised: TRL's loss at temperature beta / w_k against the tilted reference."""

    loss_type: str
    beta: float
    """beta / w_k, 1/nat."""
    label_smoothing: float
    sft_weight: float = 0.0
    """Weight of the chosen responses' own loss: minus their mean log-probability a token."""


class TiltedDPOTrainer(WholeCheckpoints, DPOTrainer):  # type: ignore[misc]  # trl is untyped
    """TRL's DPOTrainer on rows that are tokenised and carry their (tilted) reference log-probabilities.

    Rows: prompt_ids, chosen_ids, rejected_ids, ref_chosen_logps, ref_rejected_logps, and `set`, a number that the pairs
    of one ranked set share (each pair is its own set where the column is missing). With tilted references DPO is MODPO:
    see `alignlab.training.tilt`. TRL would tokenise, and recompute the reference for every change of a setting.

    A batch is this process's share of an optimizer step. It is computed in one or several forwards, of whatever sizes;
    each counts by its pairs, so that a step is the mean over exactly its pairs.

    Args:
        model: the frozen model that gets an adapter.
        args: TRL's settings; per_device_train_batch_size is the whole share, gradient_accumulation_steps 1.
        train_dataset: the rows.
        pairs_per_forward: pairs of one forward at most; None for no limit.
        tokens_per_forward: slots of one forward at most, in place of the number of pairs; None for no limit.
        sft_weight: see PreferenceLoss.
        autocast: compute in bfloat16 as the reference pass does, where args.bf16 does not.
        named: TRL's other arguments.
    """

    accelerator: Any

    def __init__(
        self,
        *,
        model: Any,
        args: DPOConfig,
        train_dataset: Dataset,
        pairs_per_forward: int | None = None,
        tokens_per_forward: int | None = None,
        sft_weight: float = 0.0,
        autocast: bool = False,
        **named: Any,
    ) -> None:
        self.sft_weight, self.autocast = sft_weight, autocast
        self.packing = packing_of(model, longest=_longest(train_dataset), autocast=autocast or args.bf16)
        self.meter = Meter(args.beta)
        collator = StepCollator(
            pad_token_id=named["processing_class"].pad_token_id,
            packing=self.packing,
            pairs_per_forward=pairs_per_forward,
            tokens_per_forward=tokens_per_forward,
            in_step=bool(args.fsdp),
        )
        disable_dropout_in_model(model)  # the model's own; what peft.dropout asks of the adapter stays
        args.disable_dropout = False
        args.router_aux_loss_coef = 0.0  # a load-balancing loss over padded rows is not one over distinct tokens
        with _unhashed():
            super().__init__(model=model, args=args, train_dataset=train_dataset, data_collator=collator, **named)

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "set" not in self._signature_columns:
            self._signature_columns.append("set")

    def _get_train_sampler(self, *given: Any) -> Any:
        arguments, rows = self.args, self.train_dataset
        if arguments.train_sampling_strategy != "random":
            return super()._get_train_sampler(*given)
        batch = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        sets = rows["set"] if "set" in rows.column_names else range(len(rows))
        order = WholeBatches(sets, batch_size=batch, seed=arguments.data_seed)
        self.add_callback(OrderOfEpoch(order))
        return order

    def train(self, *given: Any, **named: Any) -> Any:
        """Trains the model as the engine computes it."""
        with computing(self.model, self.packing):
            return super().train(*given, **named)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One batch's gradient and loss, forward by forward; processes exchange gradients after the last."""
        total = torch.zeros((), device=self.accelerator.device)
        forwards = inputs["forwards"]
        for number, forward in enumerate(forwards, start=1):
            is_last = number == len(forwards)
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(model):
                total += super().training_step(model, forward, num_items_in_batch)
        return total

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        """TRL's loss of one forward, times its share of the batch's pairs."""
        inputs = dict(inputs)
        layout, share = inputs.pop("layout").to(self.accelerator.device), inputs.pop("share")
        precision = torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16, enabled=self.autocast)
        with precision, fused_head(model, LOGGED_FIELDS if self._will_log() else ("log_probs",)):
            outputs = score_layout(model, layout)
        self.meter.add(outputs, inputs)
        with self._without_metrics():
            unread = FusedCausalLMOutput(log_probs=outputs.log_probs.double())  # TRL sums them, see REFERENCES
            unread.entropy = unread.mean_logits = unread.is_top1 = _Unread()
            loss = super()._compute_loss(lambda **_: unread, inputs, return_outputs)
        if self.sft_weight:
            loss = loss + self.sft_weight * chosen_nll(outputs.log_probs, inputs["completion_mask"])
        return share * loss

    def _will_log(self) -> bool:
        """Whether the step at hand ends in a log line."""
        return bool((self.state.global_step + 1) % self.args.logging_steps == 0)

    @contextlib.contextmanager
    def _without_metrics(self) -> Iterator[None]:
        """Gives TRL's metrics nothing to gather or to wait for: the meter has its own."""
        accelerator = self.accelerator
        unread = lambda _: _Unread()  # noqa: E731
        self.accelerator = SimpleNamespace(device=accelerator.device, gather=unread, gather_for_metrics=unread)
        try:
            yield
        finally:
            self.accelerator = accelerator

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's log line, from the meter's figures."""
        metrics = self.meter.read(self.accelerator)
        self._metrics["train"] = defaultdict(list, {name: [value] for name, value in metrics.items()})
        super().log(logs, start_time)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No model card: the run folder's result.json says what was trained."""


def chosen_nll(log_probs_BT: Tensor, completion_mask: Tensor) -> Tensor:
    """Mean over the pairs of minus the chosen response's mean log-probability a token, nats.

    A mean of means: the sum over forwards, each by its share of the pairs, is then that of the whole batch.

    Args:
        log_probs_BT: chosen rows first, then rejected ones; zero where nothing is scored.
        completion_mask: 1 for a response's tokens, shape (B, any).
    """
    chosen, _ = log_probs_BT.sum(dim=1).chunk(2)
    lengths, _ = completion_mask.sum(dim=1).chunk(2)
    return -(chosen / lengths.clamp(min=1)).mean()


@contextlib.contextmanager
def _unhashed() -> Iterator[None]:
    """Spares the hash of every weight that names TRL's own cache of references: here it names nothing."""
    before = dpo_trainer.hash_module
    dpo_trainer.hash_module = lambda _: None
    try:
        yield
    finally:
        dpo_trainer.hash_module = before


class _Unread:
    """Stands where TRL's metrics look for numbers: what is done with it gives itself, and as a number it is 0."""

    def _itself(self, *_: Any, **__: Any) -> "_Unread":
        return self

    __getitem__ = __mul__ = __and__ = detach = sum = mean = _itself

    def chunk(self, chunks: int, **_: Any) -> list["_Unread"]:
        return [self] * chunks

    def item(self) -> float:
        return 0.0

    def __gt__(self, _: Any) -> bool:
        return False


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
) -> Path:
    """Trains a LoRA adapter and returns its folder, `folder/adapter`. A checkpoint in the folder is resumed.

    Args:
        base: the frozen base model; it is itself again afterwards.
        rows: tokenised pairs with reference log-probabilities (see TiltedDPOTrainer).
        loss: what is minimised.
        trainer: the recipe.
        peft: the adapter.
        hardware: device and number of processes.
        seed: of adapter initialisation and row order.
        folder: the run folder.
        callbacks: told about logs and steps.
    """
    checkpoints = folder / "checkpoints"
    share = share_batch(trainer, hardware.processes)
    recipe = training_arguments(trainer, hardware, seed=seed)
    arguments = DPOConfig(
        output_dir=str(checkpoints),
        **recipe | {"per_device_train_batch_size": share, "gradient_accumulation_steps": 1},
        beta=loss.beta,
        loss_type=[loss.loss_type],
        label_smoothing=loss.label_smoothing,
        max_length=None,
        precompute_ref_log_probs=True,
    )
    engine = TiltedDPOTrainer(
        model=base.model,
        args=arguments,
        train_dataset=rows,
        processing_class=base.tokenizer,
        peft_config=lora_config(peft),
        callbacks=callbacks,
        pairs_per_forward=trainer.per_device_train_batch_size,
        tokens_per_forward=trainer.max_tokens_per_forward,
        sft_weight=loss.sft_weight,
        autocast=hardware.bf16 and hardware.fsdp,
    )
    assert engine.is_fsdp_enabled or not hardware.fsdp, "accelerate shares nothing out where it sees no GPU"
    run_trainer(engine, checkpoints)
    adapter = folder / "adapter"
    weights = trained_weights(engine.model) if engine.is_fsdp_enabled else None
    if engine.accelerator.is_main_process:
        engine.model.save_pretrained(str(adapter), state_dict=weights)
    engine.accelerator.wait_for_everyone()
    take_off(engine.accelerator.unwrap_model(engine.model))
    base.model.__dict__.pop("forward", None)  # TRL's fused head patches the instance
    return adapter
