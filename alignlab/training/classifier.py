"""Trains a classifier with one label by TRL's RewardTrainer on preference pairs: Bradley-Terry, or a cost model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl import RewardConfig as TrlRewardConfig
from trl import RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from alignlab.config.recipe import TrainingRecipe
from alignlab.config.schema import HardwareConfig, PeftConfig, TrainerConfig
from alignlab.data.records import Pair
from alignlab.engine.memory import token_budget
from alignlab.io.atomic import new_folder
from alignlab.models.adapters import lora_config, sort_adapter_config
from alignlab.models.base import Base
from alignlab.models.paths import ADAPTER
from alignlab.rewards.classifier import new_classifier
from alignlab.rewards.reading import TextReader
from alignlab.rewards.scorer import absent_token
from alignlab.runs.tracking import tracking
from alignlab.training.cost import CHOSEN_SAFE, REJECTED_SAFE, SAFE, CostCollator, cost_loss
from alignlab.training.launch import run_stage
from alignlab.training.loop import fit_batch, run_trainer, training_arguments, turn_off_dropout
from alignlab.training.sharding import trained_weights
from alignlab.training.shared import SharedTraining


class ClassifierTrainer(SharedTraining, RewardTrainer):  # type: ignore[misc]  # trl is untyped
    """TRL's RewardTrainer, with batches that do not depend on how many processes share them."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No model card: the run folder's result.json says what was trained."""


class CostTrainer(ClassifierTrainer):
    """The same with the cost model's loss; TRL's metrics, and how often the sign of a score is right."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean loss of a batch's pairs.

        Args:
            model: the classifier.
            inputs: a batch of CostCollator's.
            return_outputs: give the model's outputs too.
            num_items_in_batch: transformers'; the mean is over this batch.
        """
        safe_2P = inputs.pop(SAFE)
        _, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        scores_2P = outputs.logits.view(2, -1)
        loss = cost_loss(scores_2P, safe_2P).mean()
        right = self.accelerator.gather(((scores_2P > 0) == safe_2P).float().mean()).mean()
        self._metrics["train" if model.training else "eval"]["sign_accuracy"].append(right.item())
        return (loss, outputs) if return_outputs else loss


@dataclass(frozen=True)
class ReadPairs:
    """Pairs as a classifier reads them."""

    table: Dataset
    """chosen_ids, rejected_ids; chosen_safe and rejected_safe where safety labels were given."""
    identical: int
    """Pairs whose texts are identical after truncation: nothing is left to learn from."""
    cut: int
    """Texts that were cut at the limit."""


def read_pairs(pairs: Sequence[Pair], reader: TextReader, safe: Sequence[tuple[bool, bool]] | None = None) -> ReadPairs:
    """Tokens of every pair.

    Args:
        pairs: what is trained on.
        reader: the classifier's.
        safe: of each pair, whether the chosen and the rejected response are safe; a cost model needs it.

    Raises:
        ValueError: if no pair is left.
    """
    chosen = reader.read_all([(pair.prompt, pair.chosen) for pair in pairs])
    rejected = reader.read_all([(pair.prompt, pair.rejected) for pair in pairs])
    columns: dict[str, list[Any]] = {
        "chosen_ids": [row.ids for row in chosen],
        "rejected_ids": [row.ids for row in rejected],
    }
    if safe is not None:
        columns |= {CHOSEN_SAFE: [one for one, _ in safe], REJECTED_SAFE: [one for _, one in safe]}
    kept = [index for index in range(len(pairs)) if chosen[index].ids != rejected[index].ids]
    if not kept:
        raise ValueError(f"trainer.max_length={reader.max_length}: cuts all {len(pairs)} pairs down to one text each")
    table = Dataset.from_dict({name: [values[index] for index in kept] for name, values in columns.items()})
    return ReadPairs(table, len(pairs) - len(kept), reader.cut)


@dataclass(frozen=True)
class NewClassifier:
    """What a classifier is made of. JSON carries it to torchrun's workers."""

    path: str
    """Of the causal model that it starts from."""
    revision: str | None
    """Of the hub."""
    dtype: str
    """Of the body; the head is trained in float32."""
    full: bool
    """Train all weights, in place of a LoRA adapter beside the head."""
    result: str
    """Name of the folder, in the run's, that it is saved to."""


def classifier_on_processes(
    recipe: TrainingRecipe, base: Base, rows: Dataset, new: NewClassifier, folder: Path
) -> None:
    """Train a classifier and save it into `folder/new.result`; a checkpoint in the folder is resumed.

    Args:
        recipe: how it is trained; recipe.hardware says on how many processes.
        base: the causal model, which leaves the device meanwhile.
        rows: `read_pairs`'s; a cost model is trained where they have safety labels.
        new: what the classifier is made of.
        folder: the run folder.

    Raises:
        RuntimeError: if a process fails; names the log.
    """
    limit, device = token_budget(base.model, backward=True), base.device
    trainer = fit_batch(recipe.trainer, recipe.hardware, rows_each=2, longest=_longest(rows), max_tokens=limit)
    recipe = replace(recipe, trainer=trainer)
    if recipe.hardware.world_size > 1:
        run_stage("classifier", {"classifier": asdict(new)}, recipe, base, rows, folder)
        return
    base.model.to("cpu")  # its memory is needed
    classifier_here(recipe, rows, new, folder)
    base.model.to(device)


def classifier_here(recipe: TrainingRecipe, rows: Dataset, new: NewClassifier, folder: Path) -> None:
    """The same in this process, which may be one of several.

    Args:
        recipe: how it is trained; its batches are each process's.
        rows: `read_pairs`'s.
        new: what the classifier is made of.
        folder: the run folder.
    """
    with tracking(recipe.tracker, folder) as tracker:
        train_classifier(
            new.path,
            new.revision,
            rows,
            dtype=new.dtype,
            trainer=recipe.trainer,
            hardware=recipe.hardware,
            seed=recipe.seed,
            folder=folder / new.result,
            checkpoints=folder / "checkpoints",
            peft=None if new.full else recipe.peft,
            callbacks=[tracker],
        )


def train_classifier(
    path: str,
    revision: str | None,
    rows: Dataset,
    *,
    dtype: str,
    trainer: TrainerConfig,
    hardware: HardwareConfig,
    seed: int,
    folder: Path,
    checkpoints: Path,
    peft: PeftConfig | None,
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Trains and saves model and tokenizer into `folder`. A checkpoint is resumed.

    Args:
        path: the causal model that the classifier starts from.
        revision: its revision on the hub.
        rows: `read_pairs`'s; a cost model is trained where they have safety labels.
        dtype: of the body; the head is trained in float32.
        trainer: the recipe; its batches are each process's.
        hardware: device and precision.
        seed: of the head, the adapter and the order of the rows.
        folder: where the result goes: an adapter that holds the head, or a whole model.
        checkpoints: their folder.
        peft: a LoRA adapter to train beside the head; None trains all weights.
        callbacks: told about logs and steps.
    """
    tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    separate = tokenizer.pad_token_id if tokenizer.pad_token_id != tokenizer.eos_token_id else None
    model = new_classifier(path, revision=revision, dtype=getattr(torch, dtype), seed=seed)
    turn_off_dropout(model)
    arguments = TrlRewardConfig(
        output_dir=str(checkpoints),
        **training_arguments(trainer, hardware, seed=seed),
        logging_first_step=True,  # what the untrained model loses, to tell divergence by
        max_length=None,
        disable_dropout=False,
    )
    pad = _padding(rows, separate)
    labelled = CHOSEN_SAFE in rows.column_names
    hf_trainer = (CostTrainer if labelled else ClassifierTrainer)(
        model=model,
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=(CostCollator if labelled else DataCollatorForPreference)(pad_token_id=pad),
        peft_config=None if peft is None else _lora_with_head(lora_config(peft, model)),
        callbacks=list(callbacks),
    )
    model.config.get_text_config().pad_token_id = pad  # TRL has put EOS there where the tokenizer has no other
    hf_trainer.set_precision(hardware)
    run_trainer(hf_trainer, checkpoints)
    model.config.get_text_config().pad_token_id = separate
    tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)  # TRL changes it
    _save(hf_trainer, tokenizer, folder)


def _save(hf_trainer: Any, tokenizer: Any, folder: Path) -> None:
    """Save the trained model once; every process must call this.

    Args:
        hf_trainer: the trainer.
        tokenizer: the model's.
        folder: where the result goes.
    """
    weights = {"state_dict": trained_weights(hf_trainer.model)} if hf_trainer.is_fsdp_enabled else {}
    if hf_trainer.accelerator.is_main_process:
        with new_folder(folder) as target:
            hf_trainer.accelerator.unwrap_model(hf_trainer.model).save_pretrained(str(target), **weights)
            if (target / ADAPTER).is_file():
                sort_adapter_config(target)
            tokenizer.save_pretrained(str(target))
    hf_trainer.accelerator.wait_for_everyone()


def _lora_with_head(lora: LoraConfig) -> LoraConfig:
    """The same adapter for a classifier; PEFT then trains the score head whole and saves it with the adapter."""
    lora.task_type = "SEQ_CLS"
    return lora


def _longest(rows: Dataset) -> int:
    return max(len(ids) for name in ("chosen_ids", "rejected_ids") for ids in rows[name])


def _padding(rows: Dataset, separate: int | None) -> int:
    """A token that ends no row, because transformers scores the last token that is no padding."""
    last = {ids[-1] for column in ("chosen_ids", "rejected_ids") for ids in rows[column]}
    return separate if separate is not None and separate not in last else absent_token(last)
