"""Supervised fine-tuning through TRL's SFTTrainer, on rows that are tokenised here."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from alignlab.config.recipe import TrainingRecipe
from alignlab.config.schema import HardwareConfig, TrainerConfig
from alignlab.engine.memory import token_budget
from alignlab.models.adapters import detach_adapter, lora_config, save_adapter
from alignlab.models.base import Base
from alignlab.models.prompts import Encoded
from alignlab.runs.tracking import tracking
from alignlab.training.launch import run_stage
from alignlab.training.loop import fit_batch, run_trainer, training_arguments
from alignlab.training.sharding import trained_weights
from alignlab.training.shared import SharedTraining

_LOGITS_COPIES = 4
"""(tokens, vocabulary) tensors at once: logits as they come, in float32, their softmax, the gradient."""


_NO_LABEL = -100
"""Of a token that carries no loss."""


class SharedSftTrainer(SharedTraining, SFTTrainer):  # type: ignore[misc]  # trl is untyped
    """TRL's SFTTrainer, with steps that do not depend on how many processes share them.

    TRL divides a step's loss by the responses' tokens of all its batches, on all processes.
    """


def sft_on_processes(recipe: TrainingRecipe, base: Base, rows: Sequence[Encoded], folder: Path) -> Path:
    """Train an adapter on the responses' tokens into `folder/adapter`, and return that folder.

    Args:
        recipe: how it is trained; recipe.hardware says on how many processes.
        base: the base model; other processes load it again from its path.
        rows: prompts and responses as tokens.
        folder: the run folder; a checkpoint in it is resumed.

    Raises:
        RuntimeError: if a process fails; names the log.
    """
    recipe = replace(recipe, trainer=_fitted(recipe.trainer, recipe.hardware, base.model, rows))
    table = _table(rows)
    if recipe.hardware.world_size == 1:
        return sft_here(recipe, base, table, folder)
    run_stage("sft", {}, recipe, base, table, folder)
    return folder / "adapter"


def sft_here(recipe: TrainingRecipe, base: Base, rows: Dataset, folder: Path) -> Path:
    """The same in this process, which may be one of several.

    Args:
        recipe: how it is trained; its batches are each process's.
        base: the base model; restored on return.
        rows: `_table`'s.
        folder: the run folder.
    """
    adapter = folder / "adapter"
    with tracking(recipe.tracker, folder) as tracker:
        arguments = _arguments(recipe.trainer, recipe.hardware, seed=recipe.seed, checkpoints=folder / "checkpoints")
        hf_trainer = SharedSftTrainer(
            model=base.model,
            args=arguments,
            train_dataset=rows,
            processing_class=base.tokenizer,
            peft_config=lora_config(recipe.peft, base.model),
            callbacks=[tracker],
        )
        hf_trainer.set_precision(recipe.hardware)
        _run(hf_trainer)
    weights = trained_weights(hf_trainer.model) if hf_trainer.is_fsdp_enabled else None
    trained = hf_trainer.accelerator.unwrap_model(hf_trainer.model)
    if hf_trainer.accelerator.is_main_process:
        save_adapter(trained, adapter, state_dict=weights)
    hf_trainer.accelerator.wait_for_everyone()
    detach_adapter(trained)
    return adapter


def train_full(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Encoded],
    *,
    trainer: TrainerConfig,
    hardware: HardwareConfig,
    seed: int,
    checkpoints: Path,
    adam_beta2: float,
) -> Any:
    """Train all weights on the responses' tokens, in this process alone, and return the trained model.

    Rows come in TRL's own order, by which references were trained and cached.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        rows: prompts and responses as tokens.
        trainer: the optimiser's settings.
        hardware: device and precision; one process.
        seed: of the row order.
        checkpoints: folder of the checkpoints; the newest is resumed.
        adam_beta2: AdamW's second decay rate.
    """
    trainer = _fitted(trainer, hardware, model, rows)
    arguments = _arguments(trainer, hardware, seed=seed, checkpoints=checkpoints, adam_beta2=adam_beta2)
    hf_trainer = SFTTrainer(model=model, args=arguments, train_dataset=_table(rows), processing_class=tokenizer)
    _run(hf_trainer)
    return hf_trainer.accelerator.unwrap_model(hf_trainer.model)


def _fitted(trainer: TrainerConfig, hardware: HardwareConfig, model: Any, rows: Sequence[Encoded]) -> TrainerConfig:
    """The settings of each process; see `fit_batch`."""
    longest = max((len(row.prompt_ids) + len(row.response_ids) for row in rows), default=1)
    max_tokens = token_budget(model, backward=True, logits_copies=_LOGITS_COPIES)
    return fit_batch(trainer, hardware, rows_each=1, longest=longest, max_tokens=max_tokens)


def _table(rows: Sequence[Encoded]) -> Dataset:
    """input_ids and labels: the prompts' tokens carry no loss."""
    table = {
        "input_ids": [row.prompt_ids + row.response_ids for row in rows],
        "labels": [[_NO_LABEL] * len(row.prompt_ids) + row.response_ids for row in rows],
    }
    return Dataset.from_dict(table)


def _arguments(
    trainer: TrainerConfig, hardware: HardwareConfig, *, seed: int, checkpoints: Path, adam_beta2: float = 0.999
) -> SFTConfig:
    return SFTConfig(
        output_dir=str(checkpoints),
        **training_arguments(trainer, hardware, seed=seed),
        logging_first_step=True,  # what the untrained model loses, to tell divergence by
        max_length=None,
        adam_beta2=adam_beta2,
    )


def _run(hf_trainer: SFTTrainer) -> None:
    vocabulary = hf_trainer.model.config.get_text_config().vocab_size
    run_trainer(hf_trainer, Path(hf_trainer.args.output_dir), uniform_loss=math.log(vocabulary))
