"""Small reference models that alignlab trains from random weights, kept in the cache."""

import dataclasses
import hashlib
import json
import random
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

from alignlab.config.parts import RowSource, ScratchModel
from alignlab.config.schema import FromScratchConfig, TrainerConfig
from alignlab.data.records import Prompt, prompt_text
from alignlab.data.sources import read_ranked_rows, select_split, split_settings
from alignlab.data.worlds import toy
from alignlab.io.atomic import new_folder, write_json
from alignlab.io.kept import keep
from alignlab.models.cards import CARD, changed_file, file_hashes
from alignlab.models.prompts import PromptEncoder
from alignlab.models.scratch import bpe_tokenizer, new_llama, word_tokenizer
from alignlab.runs.progress import say
from alignlab.training.sft import train_full


def scratch_folder(source: ScratchModel) -> Path:
    """Folder of a model that starts from random weights, in the cache; trained when it is not there."""
    model = source.settings
    made_of: dict[str, object] = {
        "architecture": asdict(model.architecture),
        "pretraining": asdict(model.pretraining),
        "template": model.prompt_template,
        "data": toy.WORLD_VERSION if source.rows is None else _data_identity(source.rows),
    }
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]
    folder = source.cache / "references" / f"{model.kind}-{digest}"

    def train() -> None:
        say(f"needs a reference model: training {model.name} from scratch into {folder}")
        _train(source, folder, made_of)

    keep(folder, cache=source.cache, fault=partial(_fault, made_of=made_of), make=train, say=say)
    shutil.rmtree(_checkpoints(folder), ignore_errors=True)  # also those of a process that was killed before it could
    return folder


def _checkpoints(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.checkpoints"


def _fault(folder: Path, made_of: dict[str, object]) -> str | None:
    """Why a folder does not hold the model that was saved there; one of an earlier version recorded no hashes."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        files = card.pop("files", {})
    except (OSError, ValueError, AttributeError):
        return f"{CARD} is gone or damaged"
    if card != json.loads(json.dumps(made_of)):
        return f"{CARD} was changed or damaged since it was saved"
    return changed_file(folder, files)


def _data_identity(rows: RowSource) -> list[object]:
    """The responses that a reference learns from: the source, and every setting that selects among them."""
    settings = asdict(rows.settings)
    source: object = rows.identity
    if settings.get("path") is None:
        source = [settings.get(key) for key in ("hub", "revision", "subset", "data_dir", "train_split")]
    options = [settings.get(key) for key in ("pairs", "min_score_ratio", "ignore")]
    split = split_settings(rows.settings)
    return [source, settings["kind"], options, split, settings["max_rows"], rows.max_length]


def _train(source: ScratchModel, folder: Path, made_of: dict[str, object]) -> None:
    model = source.settings
    texts = _demonstrations(model) if source.rows is None else _responses(source.rows, model.pretraining.rows)
    if source.rows is None:
        tokenizer = word_tokenizer(toy.vocabulary(str(model.prompt_template)))
    else:
        corpus = (text for prompt, response in texts for text in (prompt_text(prompt), response))
        tokenizer = bpe_tokenizer(corpus, model.architecture.vocab_size)
    encoder = PromptEncoder(tokenizer, model.prompt_template)
    limit = model.architecture.max_position_embeddings
    rows = [row for row in encoder.encode_all(texts) if len(row.prompt_ids) < limit]
    rows = [dataclasses.replace(row, response_ids=row.response_ids[: limit - len(row.prompt_ids)]) for row in rows]
    seed = model.pretraining.seed
    trained = train_full(
        new_llama(model.architecture, tokenizer, seed=seed),
        tokenizer,
        rows,
        trainer=_recipe(source.trainer, model),
        hardware=source.hardware,
        seed=seed,
        checkpoints=_checkpoints(folder),
        adam_beta2=model.pretraining.adam_beta2,
    )
    with new_folder(folder) as target:
        trained.save_pretrained(target)
        tokenizer.save_pretrained(target)
        write_json(target / CARD, {**made_of, "files": file_hashes(target)})


def _demonstrations(model: FromScratchConfig) -> list[tuple[Prompt, str]]:
    """(prompt, response) of the toy's grammar."""
    rng = random.Random(f"demonstrations {model.pretraining.seed}")
    prompts = toy.prompts("train")
    return [
        (prompt, toy.demonstration(prompt, rng))
        for prompt in (prompts[index % len(prompts)] for index in range(model.pretraining.rows))
    ]


def _responses(source: RowSource, most: int) -> list[tuple[Prompt, str]]:
    """(prompt, response) of both responses to the data's training prompts."""
    rows = select_split(read_ranked_rows(source.file, max_length=source.max_length), source.settings, "train")
    return [(row.prompt, response) for row in rows for response in row.responses][:most]


def _recipe(trainer: TrainerConfig, model: FromScratchConfig) -> TrainerConfig:
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
        sets_per_step=None,
        save_steps=200,
    )
