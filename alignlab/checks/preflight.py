"""Everything about a run that can be wrong and can be seen without loading a model. Imports no torch."""

import importlib
import importlib.util
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from alignlab.checks.methods import METHOD_CHECKS
from alignlab.checks.rewards import check_rewards
from alignlab.config.batches import share_batch
from alignlab.config.names import PROBE_PROMPTS
from alignlab.config.objectives import check_targets
from alignlab.config.plan import Plan
from alignlab.config.recipe import TRACKERS, TrainingRecipe
from alignlab.config.schema import (
    MIN_MODPO_WEIGHT,
    AuditConfig,
    ChooseConfig,
    CourseCorrectionConfig,
    DpoConfig,
    EvaluateConfig,
    ExportConfig,
    FromScratchConfig,
    FrontConfig,
    LocalJudgeConfig,
    MergeConfig,
    ModpoConfig,
    PairsConfig,
    PretrainedConfig,
    PublishConfig,
    RebelConfig,
    ServerGeneratorConfig,
    SynthesisConfig,
)
from alignlab.config.schema.publish import FORMATS
from alignlab.config.uses import value_at
from alignlab.data.benign import check_quality_files
from alignlab.data.files import data_files, read_rows
from alignlab.data.requests import check_requests
from alignlab.data.sources import check_source, files_of
from alignlab.data.worlds import toy
from alignlab.errors import ConfigError, nearest, require, require_one_of
from alignlab.models.checkpoint import UNQUANTISED, stored_quantization, weights_of
from alignlab.models.paths import check_folder
from alignlab.models.saved_adapter import checked_adapter, conditioned_card
from alignlab.runs.result import RESULT, require_finished

NUM_ROWS_LOOKED_AT = 500
"""Rows of a synthesised set whose words are looked at."""


def check(plan: Plan[Any]) -> None:
    """Raise ConfigError for the first thing that cannot work."""
    algorithm, recipe = plan.algorithm, plan.recipe
    share_batch(recipe.trainer, recipe.hardware)
    if recipe.hardware.fsdp:
        _check_shareable(recipe)
    library = TRACKERS.get(recipe.tracker.kind) if algorithm.uses.trains else None
    if library is not None and importlib.util.find_spec(library) is None:
        what = f"needs {library}; pip install 'alignlab[{library}]', or tracker=local"
        raise ConfigError(f"tracker={recipe.tracker.kind}: {what}")
    if algorithm.uses.trains and recipe.peft.target_modules != "all-linear":
        _check_lora_targets(recipe)
    if not plan.collects:
        check_targets(plan.target, list(plan.rows.settings.objectives))
    _check_data(plan)
    _check_model(plan)
    check_rewards(plan)
    _check_served_adapter(plan)
    match plan.judge:
        case LocalJudgeConfig(path=path) if plan.judges:
            check_folder("judge.path", str(path), "config.json")
    if plan.samples and algorithm.uses.data == "preferences":
        _ = plan.local_generator  # refuses a server
    if plan.generator.max_new_tokens == 0 and plan.samples and algorithm.uses.data != "preferences":
        what = f"algorithm={algorithm.name} has no responses to take a length from; give a number of tokens"
        raise ConfigError(f"generator.max_new_tokens=0: {what}")
    for kind in type(algorithm).__mro__:
        if kind in _CHECKS:
            _CHECKS[kind](algorithm, plan)


LLAMA_LAYERS = (
    *(f"model.layers.0.self_attn.{name}_proj" for name in "qkvo"),
    *(f"model.layers.0.mlp.{name}_proj" for name in ("gate", "up", "down")),
    "model.embed_tokens",
    "lm_head",
)
"""Layers of a model from scratch that LoRA can adapt."""


def _check_lora_targets(recipe: TrainingRecipe) -> None:
    """Refuse names in peft.target_modules that LoRA finds in no layer of a local model or one from scratch.

    Raises:
        ConfigError: with the nearest name that it has.
    """
    targets = recipe.peft.target_modules
    names = [targets] if isinstance(targets, str) else targets
    named = [name for name in names if re.fullmatch(r"[\w.]+", name)]  # others are regular expressions
    layers = _lora_layers(recipe) if named else []
    for name in named if layers else ():
        if not any(f".{layer}".endswith(f".{name}") for layer in layers):
            known = {layer.rpartition(".")[2] for layer in layers}
            raise ConfigError(f"peft.target_modules={name}: the model has no such module; {nearest(name, known)}")


def _lora_layers(recipe: TrainingRecipe) -> list[str]:
    """Names of a model's linear layers and embeddings; none where they are not known before it loads."""
    if isinstance(recipe.model, FromScratchConfig):
        return list(LLAMA_LAYERS)
    path = Path(str(value_at(recipe.model, "path")))
    shapes = (weights_of(path) if path.is_dir() else None) or {}
    if any("expert" in name for name in shapes):  # transformers joins the tensors of experts under other names
        layers: list[str] = importlib.import_module("alignlab.models.lora_layers").layers_by_config(path)
        return layers
    layers = [name.rpartition(".")[0] for name, shape in shapes.items() if len(shape) > 1]
    return layers and ["lm_head", *layers]


def _check_model(plan: Plan[Any]) -> None:
    match plan.model.settings:
        case PretrainedConfig(path=path, adapter=adapter, quantization=quantization):
            check_folder("model.path", str(path), "config.json")
            _check_adapter(adapter, plan, key="model.adapter")
            stored = stored_quantization(Path(str(path)))
            rule = f"the weights of {path} are quantised already ({stored}); leave it null"
            require(quantization is None or stored is None, "model.quantization", quantization, rule)
            if adapter:
                _check_mergeable("model.adapter", adapter, plan)
            if quantization is not None and importlib.util.find_spec("bitsandbytes") is None:
                raise ConfigError("model.quantization=nf4: needs bitsandbytes; pip install 'alignlab[nf4]'")
        case FromScratchConfig(kind="tiny") if plan.rows.toy is None and not _in_toy_words(plan):
            what = "use dataset=toy, or model=scratch for other data"
            raise ConfigError(f"model=tiny: knows the toy's words only; {what}")


def _check_shareable(recipe: TrainingRecipe) -> None:
    """Processes that shard weights gather each layer at the same time, so they must take equally many forwards."""
    tokens = recipe.trainer.max_tokens_per_forward
    rule = "must be null with hardware.fsdp=true, whose processes take equally many forwards"
    require(tokens is None, "trainer.max_tokens_per_forward", tokens, rule)
    sets = recipe.trainer.sets_per_step
    require(sets is None, "trainer.sets_per_step", sets, rule)
    quantization = value_at(recipe.model, "quantization")
    rule = "must be null with hardware.fsdp=true: 4-bit weights are not sharded"
    require(quantization is None, "model.quantization", quantization, rule)


def _check_served_adapter(plan: Plan[Any]) -> None:
    """A server loads no adapter: it must hold the one that answers under a name of its own, generator.adapter_name."""
    if not isinstance(plan.generator, ServerGeneratorConfig) or not plan.samples:
        return
    key, given = "algorithm.adapter", value_at(plan.algorithm, "adapter")
    sources = value_at(plan.algorithm, "sources") or []
    if sources:
        key, given = "algorithm.sources", sources[0]
        rule = "must name one adapter with generator=server, which holds it as generator.adapter_name"
        require(
            len(sources) == 1, key, f"[{','.join(sources)}]", f"{rule}; make pairs of each, or sample in this process"
        )
    if given and plan.generator.adapter_name is None:
        local = "answers" if sources else "prefilled"
        raise ConfigError(
            f"{key}={given}: generator=server samples what the server holds; serve the adapter and give its name there "
            f"as generator.adapter_name, or use generator={local}"
        )


def _check_course_correction(algorithm: CourseCorrectionConfig, plan: Plan[Any]) -> None:
    if algorithm.profile == "paper" and plan.model.settings.prompt_template is not None and plan.samples:
        raise ConfigError(
            "algorithm.profile=paper: needs the tokenizer's own chat template, which the reference code renders, "
            "and model.prompt_template is a text; use algorithm.profile=words"
        )
    for name, path in (("control", algorithm.control), ("labels", algorithm.labels)):
        if path is not None and not Path(path).is_file():
            raise ConfigError(f"algorithm.{name}={path}: no such file")
    _check_adapter(algorithm.adapter, plan)
    for folder in algorithm.compare:
        if not (Path(folder) / "corr.json").is_file():
            raise ConfigError(f"algorithm.compare={folder}: holds no corr.json of a finished run")


def _check_synthesis(algorithm: SynthesisConfig, plan: Plan[Any]) -> None:
    _check_adapter(algorithm.adapter, plan)
    if algorithm.control is not None and not Path(algorithm.control).is_file():
        raise ConfigError(f"algorithm.control={algorithm.control}: no such file")
    for path in algorithm.held_out:
        data_files(path, key="algorithm.held_out")
    for folder in algorithm.merge:
        require_finished("algorithm.merge", Path(folder))


def _check_pairs(algorithm: PairsConfig, plan: Plan[Any]) -> None:
    names = ", ".join(plan.objectives.weights)
    require(bool(plan.scorers), "scorers", "{}", f"must say what scores the answers, by objective ({names})")
    _check_answers(algorithm, plan)
    for source in algorithm.sources:
        _check_adapter(source, plan, key="algorithm.sources")
    if algorithm.select == "weighted":
        missing = [name for name, weight in plan.objectives.weights.items() if weight and name not in plan.scorers]
        require(not missing, "algorithm.select", "weighted", f"needs a scorer of {', '.join(missing)} too")


def _check_answers(algorithm: PairsConfig, plan: Plan[Any]) -> None:
    """A pair needs two answers to a prompt that may differ: at temperature 0 all of one policy are the same."""
    generator, sources = plan.generator, len(algorithm.sources or [None])
    if sources == 1:
        rule = "must be > 1, so that answers to a prompt can be compared"
        require(generator.samples > 1, "generator.samples", generator.samples, rule)
        rule = "must be > 0: answers of one policy are all the same without it"
        require(generator.temperature > 0, "generator.temperature", generator.temperature, rule)


def _check_evaluate(algorithm: EvaluateConfig, plan: Plan[Any]) -> None:
    _check_adapter(algorithm.adapter, plan)


def _check_audit(algorithm: AuditConfig, plan: Plan[Any]) -> None:
    if algorithm.adapter and not plan.objectives.trained_weight:
        raise ConfigError(
            f"w={plan.config.w}: the weight of {plan.objectives.trained} must be > 0 with algorithm.adapter: "
            "MODPO's loss divides by it"
        )
    _check_adapter(algorithm.adapter, plan)


def _check_front(algorithm: FrontConfig, plan: Plan[Any]) -> None:
    _check_folders(algorithm.runs)


def _check_folders(folders: list[str]) -> None:
    for folder in folders:
        if not Path(folder).is_dir():
            raise ConfigError(f"algorithm.runs={folder}: no such folder")
        if not (Path(folder) / "front.csv").is_file() and not any(Path(folder).rglob(RESULT)):
            raise ConfigError(f"algorithm.runs={folder}: holds no run; name a run, a front, or a folder of runs")


def _check_choose(algorithm: ChooseConfig, plan: Plan[Any]) -> None:
    rule = "must say what to choose by, e.g. target.safer=-0.5"
    require(bool(plan.target), "target", "{}", rule)
    _check_folders(algorithm.runs)


def _check_publish(algorithm: PublishConfig, plan: Plan[Any]) -> None:
    for one in algorithm.formats:
        library = FORMATS[one]
        if library is not None and importlib.util.find_spec(library) is None:
            what = "pip install 'alignlab[publish]', or algorithm.formats=[card]"
            raise ConfigError(f"algorithm.formats={one}: needs {library}; {what}")
    if algorithm.front is not None and not (Path(algorithm.front) / "front.csv").is_file():
        raise ConfigError(f"algorithm.front={algorithm.front}: must be a folder with a front.csv, as a sweep leaves it")
    for folder in algorithm.verdicts:
        if not (Path(folder) / "verdicts.jsonl").is_file():
            raise ConfigError(f"algorithm.verdicts={folder}: must be the folder of a course_correction run")
    if algorithm.push is not None:
        from huggingface_hub import get_token  # late: it takes half a second

        if get_token() is None:
            raise ConfigError(f"algorithm.push={algorithm.push}: needs a key of the hub; `hf auth login`, or HF_TOKEN")


def _check_adapter(
    adapter: str | None, plan: Plan[Any], *, may_classify: bool = False, key: str = "algorithm.adapter"
) -> None:
    """The adapter that an algorithm or the model is given; of one on the hub nothing is known yet.

    Args:
        adapter: its folder or hub id.
        plan: the run.
        may_classify: take a classifier's adapter too.
        key: what it stands under.
    """
    if not adapter:
        return
    check_folder(key, adapter, "adapter_config.json")
    if Path(adapter).is_dir():
        template = plan.model.settings.prompt_template
        checked_adapter(key, Path(adapter), template=template, may_classify=may_classify)


def _in_toy_words(plan: Plan[Any]) -> bool:
    """Whether a synthesised set is of the toy, so that `tiny`, whose words it has, can learn from it."""
    source, known = plan.rows, set(toy.vocabulary(str(plan.model.settings.prompt_template)))
    if source.settings.kind != "c2_syn" or value_at(source.settings, "path") is None:
        return False
    rows = (row for file in files_of(source.file) for _, row in islice(read_rows(file.path), NUM_ROWS_LOOKED_AT))
    texts = (text for row in rows for text in (row.get("prompt"), *(row.get("responses") or ())))
    return all(isinstance(text, str) and set(text.split()) <= known for text in texts)


def _check_data(plan: Plan[Any]) -> None:
    """Every row that the job will read, or draw requests from."""
    source, uses = plan.rows, plan.algorithm.uses
    if source.toy is not None:
        for name, objective in source.toy.objectives.items():
            require_one_of(f"dataset.objectives.{name}.gold", objective.gold or "null", toy.GOLD)
    if plan.collects or plan.dataset is None:
        return
    if plan.scorers:
        check_quality_files(source.settings)
    if uses.data == "requests":
        check_requests(source.settings)
    elif uses.data == "prompts":
        check_source(source.settings)
    elif plan.previous is not None:
        check(plan.previous)  # whose adapter the pairs of this one are made by
    elif source.made_by is not None:
        check(source.made_by)
    elif uses.data == "preferences":
        trained = plan.objectives.trained or None if uses.trains or uses.weighs else None
        prompts = PROBE_PROMPTS if value_at(plan.algorithm, "kind") == "probe" else 1
        check_source(source.settings, max_length=source.max_length, trained=trained, prompts=prompts)


def _check_merge(algorithm: MergeConfig, plan: Plan[Any]) -> None:
    _check_adapter(algorithm.adapter, plan, may_classify=True)
    quantization = value_at(plan.model.settings, "quantization")
    rule = "must be null with algorithm=merge: an adapter is added to weights in full precision"
    require(quantization is None, "model.quantization", quantization, rule)
    _check_mergeable("algorithm.adapter", str(algorithm.adapter), plan)


def _check_mergeable(key: str, adapter: str, plan: Plan[Any]) -> None:
    """Refuse to merge an adapter into a local model whose weights are stored quantised.

    Args:
        key: what the adapter stands under.
        adapter: its folder or hub id.
        plan: the run.
    """
    stored = stored_quantization(Path(str(value_at(plan.model.settings, "path"))))
    if stored is not None:
        raise ConfigError(f"{key}={adapter}: cannot be merged into quantised weights ({stored}); {UNQUANTISED}")


def _check_modpo(algorithm: ModpoConfig, plan: Plan[Any]) -> None:
    """The loss divides by the trained weight; at 0 the policy is the one behind the other reward."""
    objectives = plan.objectives
    trained, weight = objectives.trained, objectives.trained_weight
    if trained in plan.rewards:
        kind = plan.rewards[trained].settings.kind
        rule = f"must be implicit, fitted to the labels that are trained on, to give their unit; {kind} has another"
        require(kind in ("implicit", "gold"), f"algorithm.rewards.{trained}.kind", kind, rule)
    if 0 < weight < MIN_MODPO_WEIGHT:
        raise ConfigError(
            f"w={weight:g}: the weight of {trained} must be 0 or at least {MIN_MODPO_WEIGHT}; MODPO's loss divides by "
            "it, and below that few pairs still carry gradient"
        )
    if weight > 0:
        named = algorithm.rewards.get(trained)
        if not objectives.others and named is not None and named.normalise:
            what = (
                f"at w={objectives.plain} no other objective weighs anything, so {trained} would not be weighed in its"
            )
            unit = f"algorithm.rewards.{trained}.normalise=true"
            raise ConfigError(f"{unit}: {what} unit, as at every other w; leave this w out of the sweep")
        return
    if len(objectives.others) != 1:
        what = f"{trained} weighs 0; train another objective (algorithm.objective=...)"
        raise ConfigError(f"w={plan.objectives.plain}: {what}")
    ((other, other_weight),) = objectives.others.items()
    source = plan.rewards[other]
    fits = source.settings.kind == "implicit" and source.beta == algorithm.beta and not source.settings.normalise
    if not fits or other_weight != 1:
        raise ConfigError(
            f"w=0: is the policy behind the reward of {other} without training, so that reward must be implicit, "
            f"of weight 1, and of the same beta as algorithm.beta={algorithm.beta:g}"
        )


def _check_rounds(algorithm: DpoConfig | RebelConfig, plan: Plan[Any]) -> None:
    """Later rounds need prompts to answer, and an adapter in this process that answers them."""
    if algorithm.rounds == 1:
        return
    if plan.rows.made_by is None:
        what = f"dataset={plan.rows.settings.name} holds pairs that were made once; there is nothing to sample"
        raise ConfigError(f"algorithm.rounds={algorithm.rounds}: {what}; use dataset=prompts, or 1 round")
    if plan.generator.kind == "server":
        what = "generator=server holds the model without what a round has trained"
        raise ConfigError(f"algorithm.rounds={algorithm.rounds}: {what}; use generator=transformers")


def _check_export(algorithm: ExportConfig, plan: Plan[Any]) -> None:
    conditioned_card("algorithm.adapter", Path(str(algorithm.adapter)))


_CHECKS: dict[type, Callable[[Any, Plan[Any]], None]] = {
    **METHOD_CHECKS,
    DpoConfig: _check_rounds,
    RebelConfig: _check_rounds,
    ModpoConfig: _check_modpo,
    ExportConfig: _check_export,
    AuditConfig: _check_audit,
    MergeConfig: _check_merge,
    EvaluateConfig: _check_evaluate,
    CourseCorrectionConfig: _check_course_correction,
    SynthesisConfig: _check_synthesis,
    PairsConfig: _check_pairs,
    FrontConfig: _check_front,
    ChooseConfig: _check_choose,
    PublishConfig: _check_publish,
}
"""What one algorithm needs beside what every run does."""
