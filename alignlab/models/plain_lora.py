"""Whether a saved adapter is a plain LoRA, which adds scale * B @ A to weights and no more. Imports no torch."""

from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError
from alignlab.models.saved_adapter import tensors_of

PLAIN_STARTS = (True, False, "gaussian", "orthogonal")
"""PEFT's ways to initialise LoRA that leave the base model's own weights alone."""
_BEYOND = {
    "use_dora": "also learns how long each row of a weight is (DoRA)",
    "modules_to_save": "holds whole layers",
    "trainable_token_indices": "holds whole embeddings of tokens",
    "lora_bias": "adds to biases",
    "use_qalora": "pools its input (QA-LoRA)",
    "use_bdlora": "has block-diagonal factors (BD-LoRA)",
    "target_parameters": "changes parameters that are no linear layer's weight",
    "layer_replication": "repeats layers",
    "arrow_config": "is a router (Arrow)",
    "kasa_config": "scales by singular values (KaSA)",
    "monteclora_config": "draws its weights (MonteCLoRA)",
    "velora_config": "compresses its input (VeLoRA)",
}
"""PEFT's settings under which an adapter is more than a product of two factors, with what it then is."""
_FACTORS = (".lora_A.weight", ".lora_B.weight")


def require_plain(key: str, folder: Path, settings: dict[str, Any]) -> None:
    """Refuse an adapter whose effect is not scale * B @ A on the weights of linear layers.

    Args:
        key: what it stands under, e.g. `algorithm.adapters.safer`.
        folder: its folder.
        settings: PEFT's, from its adapter_config.json.

    Raises:
        ConfigError: naming the setting or the tensor.
    """
    fault = next((f"{what} ({name})" for name, what in _BEYOND.items() if settings.get(name)), None)
    if settings.get("bias", "none") != "none":
        fault = f"trains biases (bias={settings['bias']})"
    if settings.get("init_lora_weights", True) not in PLAIN_STARTS:
        fault = f"starts from changed base weights (init_lora_weights={settings['init_lora_weights']})"
    others = [name for name in tensors_of(folder) if not name.endswith(_FACTORS)]
    if fault is None and others:
        fault = f"holds {others[0]}, which is no factor of a linear layer's change"
    if fault is not None:
        raise ConfigError(f"{key}={folder}: {fault}; a sum of plain LoRAs cannot express that")
