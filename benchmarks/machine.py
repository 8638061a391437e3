"""What a figure was measured on."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

LIBRARIES = ("alignlab", "torch", "transformers", "trl", "peft")


def machine() -> dict[str, Any]:
    """Versions, processor, cores and GPU."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def machine_line(told: dict[str, Any]) -> str:
    """The same in one line."""
    libraries = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    where = told["gpu"] or f"{told['cores']} cores of {told['processor']}"
    return f"{where}; Python {told['python']}, {libraries}."
