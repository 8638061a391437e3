"""TRL's own DPOTrainer and alignlab's on one table of pairs, and the tiny models that both train."""

from dataclasses import dataclass

import torch
import transformers
from datasets import Dataset
from transformers import TrainerCallback, TrainingArguments
from trl import DPOConfig, DPOTrainer

from alignlab.config.schema import PeftConfig
from alignlab.engine.scoring.logps import response_logps
from alignlab.models.adapters import lora_config
from alignlab.models.prompts import Encoded
from alignlab.models.scratch import word_tokenizer
from alignlab.training.losses import PreferenceLoss
from alignlab.training.preference import PreferenceTrainer

VOCABULARY = 40
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_CAPPED = {"head_dim": 8, "query_pre_attn_scalar": 8}
FAMILIES = {
    "llama": ("Llama", {}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 8}),
    "gemma": ("Gemma", {"head_dim": 8}),
    "gemma2": ("Gemma2", {**_CAPPED, "sliding_window": 64}),
    "gemma2-short-window": ("Gemma2", {**_CAPPED, "sliding_window": 6}),
    "gemma3": ("Gemma3", {**_CAPPED, "sliding_window": 64}),
    "gemma3-short-window": ("Gemma3", {**_CAPPED, "sliding_window": 6}),
    "phi": ("Phi", {}),
    "phi3": ("Phi3", {}),
    "mistral": ("Mistral", {"sliding_window": 64, "head_dim": 8}),
    "mistral-short-window": ("Mistral", {"sliding_window": 6, "head_dim": 8}),
}


def model_of(family, **changes):
    """A frozen random model of a family, some 30,000 parameters."""
    name, own = FAMILIES[family]
    torch.manual_seed(0)
    kind = "eager" if name == "Gemma2" else "sdpa"  # sdpa has no capped scores
    config_class = getattr(transformers, "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config")
    config = config_class(**(SHAPE | own | changes), attn_implementation=kind)
    return getattr(transformers, f"{name}ForCausalLM")(config).eval().requires_grad_(False)


def table_of(pairs, *, sets=None):
    """The pairs in TRL's columns, with references that differ from pair to pair."""
    table = {
        "prompt_ids": [chosen.prompt_ids for chosen, _ in pairs],
        "chosen_ids": [chosen.response_ids for chosen, _ in pairs],
        "rejected_ids": [rejected.response_ids for _, rejected in pairs],
        "ref_chosen_logps": [-20.0 - number / 3 for number in range(len(pairs))],
        "ref_rejected_logps": [-21.0 - number / 5 for number in range(len(pairs))],
    }
    return Dataset.from_dict(table | ({"set": sets} if sets else {}))


def own_references(model, table):
    """The table with the model's own log-probabilities as references, as a run makes them."""
    rows = [Encoded(row["prompt_ids"], row[side]) for side in ("chosen_ids", "rejected_ids") for row in table]
    chosen, rejected = response_logps(model, rows, batch_size=len(rows), label="").chunk(2)
    table = table.remove_columns(["ref_chosen_logps", "ref_rejected_logps"])
    return table.add_column("ref_chosen_logps", chosen.tolist()).add_column("ref_rejected_logps", rejected.tolist())


def rows_of(table):
    """The rows as the trainer numbers them."""
    return [{"id": str(number), **row} for number, row in enumerate(table)]


@dataclass
class Trained:
    """What a training left."""

    logs: list
    """A dict a step."""
    gradients: list
    """Name -> gradient, a dict a step."""
    weights: dict


class Gradients(TrainerCallback):
    """Keeps every step's gradient as the optimizer gets it."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.steps.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})


class Ready(DPOTrainer):
    """TRL's trainer as it is, on rows that are tokenised and have their references."""

    def _prepare_dataset(self, dataset, *_):
        return dataset

    def _precompute_ref_logps(self, dataset, *_):
        return dataset


SETTINGS = {
    "per_device_train_batch_size": 5,
    "max_steps": 3,
    "train_sampling_strategy": "sequential",
    "learning_rate": 5e-3,
    "max_grad_norm": 0.0,
    "bf16": False,  # TRL turns it on unless told not to
    "max_length": None,
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
}


LORA = PeftConfig(r=4, alpha=8.0, dropout=0.0, target_modules="all-linear")


def loss_and_arguments(settings):
    """DPOConfig's settings as alignlab takes them: a loss, and transformers' arguments."""
    settings = dict(settings)
    settings.pop("max_length", None)
    (name,) = settings.pop("loss_type", ["sigmoid"])
    own = {key: settings.pop(key) for key in ("beta", "weight", "label_smoothing") if key in settings}
    return PreferenceLoss(name, **({"beta": 0.1} | own)), settings


def engine_of(kind, model, table, folder, *, tokenizer=None, settings=None, lora=LORA, callbacks=(), **named):
    """A trainer of TRL's ("trl") or of alignlab's, of the same settings."""
    settings, lora = SETTINGS | (settings or {}), lora and lora_config(lora, model)
    if kind == "trl":
        return Ready(
            model=model,
            args=DPOConfig(output_dir=str(folder), precompute_ref_log_probs=True, **settings),
            train_dataset=table,
            processing_class=tokenizer or word_tokenizer([]),
            peft_config=lora,
            callbacks=list(callbacks),
        )
    loss, arguments = loss_and_arguments(settings)
    arguments = TrainingArguments(output_dir=str(folder), **arguments)
    return PreferenceTrainer(
        model=model, args=arguments, rows=table, loss=loss, lora=lora, callbacks=callbacks, **named
    )


def trained(kind, model, table, folder, **named):
    """A few steps of LoRA by TRL alone ("trl") or by alignlab."""
    gradients = Gradients()
    engine = engine_of(kind, model, table, folder, callbacks=[gradients], **named)
    engine.train()
    logs = [entry for entry in engine.state.log_history if "loss" in entry]
    weights = {name: p.detach().clone() for name, p in engine.model.named_parameters() if p.requires_grad}
    return Trained(logs, gradients.steps, weights)


_SIZE = {
    "rewards": lambda log: abs(log["logps/chosen"]),  # what they are differences of
    "logits": lambda log: 1.0,  # means of many that cancel
}


def assert_alike(ours, theirs, *, tolerance=1e-5):
    """Losses, log-probabilities, rewards and gradients of every step, relative to their size."""
    assert len(ours.logs) == len(theirs.logs) == len(theirs.gradients) > 0
    for left, right in zip(ours.logs, theirs.logs, strict=True):
        assert set(left) == set(right)
        for name in left:
            size = _SIZE.get(name.partition("/")[0], lambda log: 0.0)(right)
            size = max(size, abs(right[name]))
            assert abs(left[name] - right[name]) <= tolerance * size, (name, left[name], right[name])
    for left, right in zip(ours.gradients, theirs.gradients, strict=True):
        assert left.keys() == right.keys()
        total = torch.cat([gradient.flatten() for gradient in right.values()]).norm()
        for name, gradient in right.items():
            difference = (left[name] - gradient).norm()
            assert difference <= tolerance * total, (name, float(difference / total))
