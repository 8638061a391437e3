"""What a job needs before it starts: named in the config, else found from an earlier run, else made, and said so."""

import dataclasses
import hashlib
import json
import random
import shutil
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from alignlab.config.errors import ConfigError
from alignlab.config.identity import input_fingerprints, reward_of, run_folder
from alignlab.config.schema import FromScratchConfig, PreferenceConfig, RunConfig, ToyConfig, TrainerConfig
from alignlab.data import toy
from alignlab.data.records import Prompt, RankedRow, prompt_text
from alignlab.data.sources import read_ranked_rows, select_split
from alignlab.jobs.toy_pairs import toy_pairs_file
from alignlab.models.base import Base, load_base
from alignlab.models.cards import read_card
from alignlab.models.prompts import PromptEncoder
from alignlab.models.scratch import bpe_tokenizer, new_llama, word_tokenizer
from alignlab.models.sft import train_sft
from alignlab.preference.cache import ScoreCache
from alignlab.rewards.base import Reward
from alignlab.rewards.gold import GoldReward
from alignlab.rewards.implicit import ImplicitReward
from alignlab.runs.atomic import new_folder, write_json
from alignlab.runs.progress import say

_resident: dict[str, Base] = {}
"""The base model that the last job of this process used: a sweep loads it once."""


def reference(config: RunConfig) -> Base:
    """The base model of a run, which is its reference; a small one that does not exist yet is trained first."""
    folder = _from_scratch(config) if isinstance(config.model, FromScratchConfig) else None
    hardware = config.hardware
    key = json.dumps([asdict(config.model), str(folder), hardware.device, hardware.bf16])
    if key not in _resident:
        _resident.clear()
        _resident[key] = load_base(config.model, folder=folder, device=hardware.device, autocast=hardware.bf16)
    return _resident[key]


def forget_models() -> None:
    """Drops the resident base model; the next job loads it again."""
    _resident.clear()


def ranked_rows(config: RunConfig, base: Base, split: str | None) -> list[RankedRow]:
    """The rows of one split; the toy's are sampled from the reference first."""
    made = toy_pairs_file(config, base) if isinstance(config.dataset, ToyConfig) else None
    return select_split(read_ranked_rows(config.dataset, made), config.dataset, split)


def reward(config: RunConfig, objective: str, base: Base, cache: ScoreCache) -> Reward:
    """The reward of one objective, as the config names it, else the adapter that a reward_model run makes."""
    settings = reward_of(config, objective)
    if settings.kind == "gold":
        gold = config.dataset.objectives[objective].gold
        assert gold is not None
        return GoldReward(gold, base.encoder)
    adapter, beta = reward_adapter(config, objective, base)
    batch_size = config.trainer.per_device_eval_batch_size
    return ImplicitReward(base, adapter, beta=beta, cache=cache, batch_size=batch_size, name=objective)


def reward_adapter(config: RunConfig, objective: str, base: Base) -> tuple[Path, float]:
    """Folder and beta of an objective's implicit reward; made by a reward_model run when none is named.

    Raises:
        ConfigError: if a named adapter was trained on another base, or at another beta than the config says.
    """
    settings = reward_of(config, objective)
    if settings.adapter is None:
        beta = settings.beta or config.algorithm.beta
        return _made_reward(config, objective, beta) / "adapter", beta
    folder, key = Path(settings.adapter), f"algorithm.rewards.{objective}"
    card = read_card(folder)
    if card is None:
        if settings.beta is None:
            raise ConfigError(f"{key}.beta=null: {folder} says nothing of the beta that it was trained with; give it")
        return folder, settings.beta
    if card.base != base.id:
        raise ConfigError(f"{key}.adapter={folder}: was trained on another base model ({card.base}, not {base.id})")
    if settings.beta is not None and settings.beta != card.beta:
        raise ConfigError(f"{key}.beta={settings.beta:g}: the adapter was trained with beta={card.beta:g}")
    return folder, card.beta


def _made_reward(config: RunConfig, objective: str, beta: float) -> Path:
    from alignlab.jobs.run import run_in_folder

    algorithm = PreferenceConfig(
        name="reward_model", objective=objective, beta=beta, loss_type="sigmoid", label_smoothing=0.0
    )
    needed = dataclasses.replace(config, algorithm=algorithm, force=False)
    folder = Path(config.paths.runs) / run_folder(needed)
    say(f"needs a reward for {objective}")
    run_in_folder(needed, folder, wait=True)
    return folder


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
    dataset = config.dataset
    hub = [getattr(dataset, "hub", None), getattr(dataset, "revision", None)]
    return [input_fingerprints(config).get("dataset.path") or hub, dataset.test_share, dataset.max_rows]


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
        hardware=dataclasses.replace(config.hardware, processes=1),
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
    rows = select_split(read_ranked_rows(config.dataset), config.dataset, "train")
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
