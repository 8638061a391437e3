"""Forest, padding and TRL's own trainer agree: losses, log-probabilities and gradients, on five families of models."""

import random

import pytest
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from alignlab.config.schema import PeftConfig
from alignlab.models.adapters import lora_config
from alignlab.models.prompts import Encoded
from alignlab.models.scratch import word_tokenizer
from alignlab.preference.forward import fused_head, score_layout, takes_forest
from alignlab.preference.layout import forest_layout, padded_layout
from alignlab.preference.trainer import LayoutCollator, TiltedDPOTrainer

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
FAMILIES = {
    "llama": ("Llama", {}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 8}),
    "gemma": ("Gemma", {"head_dim": 8}),
    "gemma2": ("Gemma2", {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64}),
    "gemma3": ("Gemma3", {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64}),
    "phi3": ("Phi3", {}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 8}),
}


def model_of(family):
    import transformers

    name, changes = FAMILIES[family]
    torch.manual_seed(0)
    kind = "eager" if name == "Gemma2" else "sdpa"
    config_class = getattr(transformers, "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config")
    config = config_class(**(SHAPE | changes), attn_implementation=kind)
    return getattr(transformers, f"{name}ForCausalLM")(config).eval().requires_grad_(False)


def ranked_pairs():
    """All pairs of ranked responses with shared beginnings, one-token responses and a response inside another."""
    rng = random.Random(0)
    draw = lambda count: [rng.randrange(3, VOCABULARY) for _ in range(count)]  # noqa: E731
    pairs = []
    for _ in range(2):
        prompt, text, correction = draw(5), draw(16), draw(6)
        ranked = [[2], text[:4] + correction, text[:8] + correction, text[:8], text]
        pairs += [
            (Encoded(prompt, a), Encoded(prompt, b)) for place, a in enumerate(ranked) for b in ranked[place + 1 :]
        ]
    return pairs


def rows_of(pairs):
    return [chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs]


@pytest.mark.parametrize("family", FAMILIES)
def test_forest_equals_padding(family):
    model = model_of(family)
    assert takes_forest(model)
    rows = rows_of(ranked_pairs())
    with fused_head(model), torch.no_grad():
        packed = score_layout(model, forest_layout(rows)).log_probs
        padded = score_layout(model, padded_layout(rows)).log_probs
    torch.testing.assert_close(packed.sum(1), padded.sum(1), rtol=1e-5, atol=1e-5)
    assert forest_layout(rows).num_slots < padded_layout(rows).num_slots / 3


def test_a_window_shorter_than_the_text_falls_back_to_padding():
    import transformers

    config = transformers.MistralConfig(**SHAPE, head_dim=8, sliding_window=4, attn_implementation="sdpa")
    assert not takes_forest(transformers.MistralForCausalLM(config).eval())


def test_a_recurrent_model_falls_back_to_padding():
    import transformers

    config = transformers.MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, state_size=4)
    assert not takes_forest(transformers.MambaForCausalLM(config).eval())


def trained(kind, model, pairs, folder):
    """Losses of four steps and the gradient of the first, by TRL alone or by alignlab."""
    table = Dataset.from_dict(
        {
            "prompt_ids": [chosen.prompt_ids for chosen, _ in pairs],
            "chosen_ids": [chosen.response_ids for chosen, _ in pairs],
            "rejected_ids": [rejected.response_ids for _, rejected in pairs],
            "ref_chosen_logps": [-20.0 - place / 3 for place in range(len(pairs))],
            "ref_rejected_logps": [-21.0 - place / 5 for place in range(len(pairs))],
        }
    )

    class Ready(DPOTrainer):
        def _prepare_dataset(self, dataset, *_):
            return dataset

        def _precompute_ref_logps(self, dataset, *_):
            return dataset

    settings = DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=5,
        max_steps=4,
        train_sampling_strategy="sequential",
        learning_rate=5e-3,
        bf16=False,  # TRL turns it on unless told not to
        max_length=None,
        precompute_ref_log_probs=True,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    more = {"data_collator": LayoutCollator(pad_token_id=0)} if kind == "alignlab" else {}
    engine = (TiltedDPOTrainer if kind == "alignlab" else Ready)(
        model=model,
        args=settings,
        train_dataset=table,
        processing_class=word_tokenizer([]),
        peft_config=lora_config(PeftConfig(r=4, alpha=8.0, dropout=0.0, target_modules="all-linear")),
        **more,
    )
    batch = engine.data_collator(list(table)[:5])
    engine._compute_loss(engine.model, batch, return_outputs=False).backward()
    gradients = {name: p.grad.clone() for name, p in engine.model.named_parameters() if p.grad is not None}
    engine.model.zero_grad()
    engine.train()
    logs = [entry for entry in engine.state.log_history if "loss" in entry]
    return logs, gradients


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3"])
def test_training_equals_trl(family, tmp_path):
    logs, gradients = trained("alignlab", model_of(family), ranked_pairs(), tmp_path / "a")
    expected_logs, expected = trained("trl", model_of(family), ranked_pairs(), tmp_path / "t")
    for ours, theirs in zip(logs, expected_logs, strict=True):
        for name in ("loss", "rewards/margins", "logps/chosen", "logps/rejected", "entropy", "num_tokens"):
            assert ours[name] == pytest.approx(theirs[name], rel=2e-5, abs=1e-5), name
    assert gradients.keys() == expected.keys()
    assert len(gradients) > 10
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max() + 1e-8))


def test_another_mask_is_seen():
    """The control: a layout whose tokens see a stranger's changes the log-probabilities."""
    model = model_of("llama")
    rows = rows_of(ranked_pairs())
    layout = forest_layout(rows)
    layout.ends_RL[:, :] = layout.ends_RL.max()
    with fused_head(model), torch.no_grad():
        wrong = score_layout(model, layout).log_probs.sum(1)
        right = score_layout(model, forest_layout(rows)).log_probs.sum(1)
    assert (wrong - right).abs().max() > 1e-2
