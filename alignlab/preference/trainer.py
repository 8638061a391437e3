"""Training on preference pairs: a thin subclass of TRL's DPOTrainer that takes cached, tilted references."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from alignlab.config.schema import HardwareConfig, PeftConfig, TrainerConfig
from alignlab.models.adapters import lora_config
from alignlab.models.base import Base
from alignlab.models.prompts import Encoded
from alignlab.models.training import WholeBatches, run_trainer, training_arguments
from alignlab.preference.forward import lay_out, score_layout, takes_forest


@dataclass(frozen=True)
class PreferenceLoss:
    """What is minimised: TRL's loss at temperature beta / w_k against the tilted reference."""

    loss_type: str
    beta: float
    """beta / w_k, 1/nat."""
    label_smoothing: float


class TiltedDPOTrainer(DPOTrainer):  # type: ignore[misc]  # trl is untyped
    """TRL's DPOTrainer on rows that are tokenised and carry their (tilted) reference log-probabilities.

    Rows: prompt_ids, chosen_ids, rejected_ids, ref_chosen_logps, ref_rejected_logps. With them DPO is MODPO: see
    `alignlab.preference.tilt`. TRL would tokenise, and recompute the reference for every change of a setting.
    """

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        """TRL's loss, from the layout's forward in place of the padded one."""
        inputs = dict(inputs)
        layout = inputs.pop("layout").to(self.accelerator.device)
        return super()._compute_loss(lambda **_: score_layout(model, layout), inputs, return_outputs)

    def _get_train_sampler(self, *given: Any) -> Any:
        arguments = self.args
        if arguments.train_sampling_strategy != "random":
            return super()._get_train_sampler(*given)
        batch = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        return WholeBatches(len(self.train_dataset), batch_size=batch, seed=arguments.data_seed)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No model card: the run folder's result.json says what was trained."""


@dataclass
class LayoutCollator(DataCollatorForPreference):  # type: ignore[misc]
    """TRL's batch, with the layout in which its rows are computed."""

    forest: bool = True

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Chosen rows first, then rejected ones, as TRL stacks them."""
        sides = ("chosen_ids", "rejected_ids")
        rows = [Encoded(example["prompt_ids"], example[side]) for side in sides for example in examples]
        return {**super().torch_call(examples), "layout": lay_out(rows, forest=self.forest)}


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
    arguments = DPOConfig(
        output_dir=str(checkpoints),
        **training_arguments(trainer, hardware, seed=seed),
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
        data_collator=LayoutCollator(pad_token_id=base.tokenizer.pad_token_id, forest=takes_forest(base.model)),
        peft_config=lora_config(peft),
        callbacks=callbacks,
    )
    run_trainer(engine, checkpoints)
    adapter = folder / "adapter"
    if engine.accelerator.is_main_process:
        engine.model.save_pretrained(str(adapter))
    engine.accelerator.wait_for_everyone()
    engine.accelerator.unwrap_model(engine.model).unload()
    base.model.__dict__.pop("forward", None)  # TRL's fused head patches the instance
    return adapter
