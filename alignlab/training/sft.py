"""Supervised fine-tuning through TRL's SFTTrainer, on rows that are tokenised here."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from alignlab.config.schema import HardwareConfig, TrainerConfig
from alignlab.engine.memory import token_budget
from alignlab.models.prompts import Encoded
from alignlab.training.loop import fit_batch, run_trainer, training_arguments

_LOGITS_COPIES = 4
"""(tokens, vocabulary) tensors at once: logits as they come, in float32, their softmax, the gradient."""


def train_sft(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Encoded],
    *,
    trainer: TrainerConfig,
    hardware: HardwareConfig,
    seed: int,
    checkpoints: Path,
    peft: LoraConfig | None,
    adam_beta2: float = 0.999,
    callbacks: Sequence[TrainerCallback] = (),
) -> Any:
    """Train on the responses' tokens (the prompts' carry no loss) and return the trained model.

    Args:
        model: a causal language model; all of it is trained when `peft` is None.
        tokenizer: its tokenizer.
        rows: prompts and responses as tokens.
        trainer: the optimiser's settings.
        hardware: device and number of processes.
        seed: of adapter initialisation and row order.
        checkpoints: folder of the checkpoints; the newest is resumed.
        peft: a LoRA adapter to train instead of the model.
        adam_beta2: AdamW's second decay rate.
        callbacks: told about logs and steps.
    """
    longest = max((len(row.prompt_ids) + len(row.response_ids) for row in rows), default=1)
    max_tokens = token_budget(model, backward=True, logits_copies=_LOGITS_COPIES)
    trainer = fit_batch(trainer, rows_each=1, longest=longest, max_tokens=max_tokens)
    arguments = SFTConfig(
        output_dir=str(checkpoints),
        **training_arguments(trainer, hardware, seed=seed),
        logging_first_step=True,  # what the untrained model loses, to tell divergence by
        max_length=None,
        completion_only_loss=True,
        adam_beta2=adam_beta2,
    )
    table = {
        "input_ids": [row.prompt_ids + row.response_ids for row in rows],
        "completion_mask": [[0] * len(row.prompt_ids) + [1] * len(row.response_ids) for row in rows],
    }
    engine = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(table),
        processing_class=tokenizer,
        peft_config=peft,
        callbacks=list(callbacks),
    )
    run_trainer(engine, checkpoints, uniform_loss=math.log(model.config.get_text_config().vocab_size))
    return engine.accelerator.unwrap_model(engine.model)
