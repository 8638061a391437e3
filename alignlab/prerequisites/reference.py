"""What a job needs before it starts: named in the config, else found from an earlier run, else made, and said so."""

import dataclasses
import hashlib
import json
import random
import shutil
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from alignlab.config.identity import input_fingerprints, text_limit
from alignlab.config.schema import FromScratchConfig, RunConfig, ToyConfig, TrainerConfig
from alignlab.data.records import Prompt, RankedRow, prompt_text
from alignlab.data.sources import load, read_ranked_rows, select_split, split_notice, split_settings
from alignlab.data.worlds import toy
from alignlab.io.atomic import new_folder, write_json
from alignlab.models.base import Base, load_base, load_encoder
from alignlab.models.prompts import PromptEncoder
from alignlab.models.scratch import bpe_tokenizer, new_llama, word_tokenizer
from alignlab.prerequisites.toy_pairs import toy_pairs_file
from alignlab.runs.progress import say
from alignlab.training.sft import train_sft

_resident: dict[str, Base] = {}
"""The base model that the last job of this process used: a sweep loads it once."""


def reference(config: RunConfig) -> Base:
    """The base model of a run, which is its reference; a small one that does not exist yet is trained first."""
    folder = _from_scratch(config) if isinstance(config.model, FromScratchConfig) else None
    hardware = config.hardware
    files = [input_fingerprints(config).get(name) for name in ("model.path", "model.adapter")]
    key = json.dumps([asdict(config.model), str(folder), hardware.device, hardware.bf16, files])
    if key not in _resident:
        _resident.clear()
        _resident[key] = load_base(config.model, folder=folder, device=hardware.device, autocast=hardware.bf16)
    return _resident[key]


def prompt_encoder(config: RunConfig) -> PromptEncoder:
    """The tokenizer and template of a run's model, without the model, which a server has."""
    folder = _from_scratch(config) if isinstance(config.model, FromScratchConfig) else None
    return load_encoder(config.model, folder=folder)


def forget_models() -> None:
    """Drops the resident base model; the next job loads it again."""
    _resident.clear()


def ranked_rows(config: RunConfig, base: Base, split: str | None) -> list[RankedRow]:
    """The rows of one split; the toy's are sampled from the reference first."""
    made = toy_pairs_file(config, base) if isinstance(config.dataset, ToyConfig) else None
    rows = read_ranked_rows(config.dataset, made, max_length=text_limit(config))
    return select_split(rows, config.dataset, split)


def data_report(config: RunConfig) -> dict[str, object]:
    """`data` of result.json: what the data check counted. A hub's rows are checked here, before a model is loaded.

    Nothing for the toy, whose rows are made.
    """
    if isinstance(config.dataset, ToyConfig):
        return {}
    loaded = load(config.dataset, max_length=text_limit(config))
    notice = split_notice(loaded.rows, config.dataset)
    for line in (*loaded.report.notices(), *([notice] if notice else [])):
        say(line)
    return {"data": loaded.as_record()}


def _from_scratch(config: RunConfig) -> Path:
    """Folder of a reference that alignlab trains from random weights, in the cache; trained when it is not there."""
    model = config.model
    assert isinstance(model, FromScratchConfig)
    made_of: dict[str, object] = {
        "architecture": asdict(model.architecture),
        "pretraining": asdict(model.pretraining),
        "template": model.prompt_template,
        "data": toy.WORLD_VERSION if model.kind == "tiny" else _data_identity(config),
    }
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]
    folder = Path(config.paths.cache) / "references" / f"{model.kind}-{digest}"
    with FileLock(_beside(folder)):
        if not (folder / "config.json").is_file():
            say(f"needs a reference model: training {model.name} from scratch into {folder}")
            _train_reference(config, model, folder, made_of)
    return folder


def _data_identity(config: RunConfig) -> list[object]:
    """The responses that a reference learns from: the source, and every setting that selects among them."""
    dataset = config.dataset
    source: object = input_fingerprints(config).get("dataset.path")
    if source is None:
        source = [getattr(dataset, key, None) for key in ("hub", "revision", "subset", "data_dir", "train_split")]
    options = [getattr(dataset, key, None) for key in ("pairs", "min_score_ratio", "ignore")]
    return [source, dataset.kind, options, split_settings(dataset), dataset.max_rows, config.trainer.max_length]


def _train_reference(config: RunConfig, model: FromScratchConfig, folder: Path, made_of: dict[str, object]) -> None:
    texts = _demonstrations(config, model)
    if model.kind == "tiny":
        template_words = str(model.prompt_template).replace("{raw_prompt}", " ").split()
        tokenizer = word_tokenizer([*dict.fromkeys([*toy.VOCABULARY, *template_words])])
    else:
        corpus = (text for prompt, response in texts for text in (prompt_text(prompt), response))
        tokenizer = bpe_tokenizer(corpus, model.architecture.vocab_size)
    encoder = PromptEncoder(tokenizer, model.prompt_template)
    limit = model.architecture.max_position_embeddings
    rows = [row for row in encoder.encode_all(texts) if len(row.prompt_ids) < limit]
    rows = [dataclasses.replace(row, response_ids=row.response_ids[: limit - len(row.prompt_ids)]) for row in rows]
    seed = model.pretraining.seed
    checkpoints = folder.parent / f".{folder.name}.checkpoints"
    trained = train_sft(
        new_llama(model.architecture, tokenizer, seed=seed),
        tokenizer,
        rows,
        trainer=_pretraining_recipe(config.trainer, model),
        hardware=config.hardware.on_one_process(),
        seed=seed,
        checkpoints=checkpoints,
        peft=None,
        adam_beta2=model.pretraining.adam_beta2,
    )
    with new_folder(folder) as target:
        trained.save_pretrained(target)
        tokenizer.save_pretrained(target)
        write_json(target / "alignlab.json", made_of)
    shutil.rmtree(checkpoints, ignore_errors=True)


def _demonstrations(config: RunConfig, model: FromScratchConfig) -> list[tuple[Prompt, str]]:
    """(prompt, response) to learn from: the toy's grammar, or both responses of the data's training prompts."""
    if model.kind == "tiny":
        rng = random.Random(f"demonstrations {model.pretraining.seed}")
        prompts = toy.prompts("train")
        return [
            (prompt, toy.demonstration(prompt, rng))
            for prompt in (prompts[place % len(prompts)] for place in range(model.pretraining.rows))
        ]
    rows = read_ranked_rows(config.dataset, max_length=config.trainer.max_length)
    rows = select_split(rows, config.dataset, "train")
    return [(row.prompt, response) for row in rows for response in row.responses][: model.pretraining.rows]


def _pretraining_recipe(trainer: TrainerConfig, model: FromScratchConfig) -> TrainerConfig:
    pretraining = model.pretraining
    return dataclasses.replace(
        trainer,
        learning_rate=pretraining.learning_rate,
        lr_scheduler_type=pretraining.lr_scheduler_type,
        warmup_ratio=pretraining.warmup_ratio,
        max_grad_norm=1.0,
        weight_decay=0.0,
        num_train_epochs=pretraining.num_train_epochs,
        max_steps=-1,
        per_device_train_batch_size=pretraining.batch_size,
        gradient_accumulation_steps=1,
        save_steps=200,
    )


def _beside(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder.parent / f".{folder.name}.lock"
