"""Small random checkpoints on disk, loaded as any base model is."""

from alignlab.config.schema import ArchitectureConfig, PretrainedConfig
from alignlab.models.scratch import new_llama


def save_checkpoint(folder, tokenizer, *, seed=0, **shape):
    """A random Llama over a tokenizer's words, with the tokenizer; `shape` are settings of ArchitectureConfig."""
    small = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
    }
    new_llama(ArchitectureConfig(**small | shape), tokenizer, seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def model_settings(folder, template, **changes):
    """The settings that load a checkpoint."""
    small = {
        "kind": "hf",
        "name": "tiny-random",
        "prompt_template": template,
        "learning_rate": 1e-3,
        "path": str(folder),
        "revision": None,
        "adapter": None,
        "dtype": "float32",
        "quantization": None,
        "attn_implementation": "sdpa",
    }
    return PretrainedConfig(**small | changes)
