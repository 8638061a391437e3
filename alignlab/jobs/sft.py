"""Supervised fine-tuning on the chosen responses of the dataset's first objective."""

import dataclasses

from alignlab.config.identity import objectives_of
from alignlab.config.schema import RunConfig
from alignlab.data.records import pairs_by
from alignlab.jobs.prerequisites import data_report, ranked_rows, reference
from alignlab.models.adapters import lora_config
from alignlab.models.sft import train_sft
from alignlab.preference.rows import encode_pairs
from alignlab.runs.folder import Outcome, RunFolder
from alignlab.runs.progress import say
from alignlab.runs.tracking import tracking


def run(config: RunConfig, run: RunFolder, outcome: Outcome) -> None:
    """Trains a LoRA adapter on prompt and chosen response; `model.adapter` takes it as the start of a DPO run."""
    with run.stage("prerequisites"):
        outcome.extra |= data_report(config)
        base = reference(config)
        rows = ranked_rows(config, base, config.dataset.split)
    pairs = encode_pairs(
        pairs_by(rows, objectives_of(config).trained), base.encoder, max_length=config.trainer.max_length
    )
    outcome.inputs |= {"model": base.id, "revision": base.revision}
    outcome.extra["rows"] = {"train": len(pairs.pairs), "too_long": pairs.too_long, "cut": pairs.cut}
    if config.hardware.processes > 1:
        say(f"hardware.processes={config.hardware.processes}: has no effect on algorithm=sft, which trains on one")
    with run.stage("training"), tracking(config, run.path) as tracker:
        trained = train_sft(
            base.model,
            base.tokenizer,
            [pair.chosen for pair in pairs.pairs],
            trainer=config.trainer,
            hardware=dataclasses.replace(config.hardware, processes=1),
            seed=config.seed,
            checkpoints=run.path / "checkpoints",
            peft=lora_config(config.peft),
            callbacks=[tracker],
        )
    trained.save_pretrained(str(run.path / "adapter"))
    trained.unload()
    outcome.artifacts["adapter"] = "adapter"
