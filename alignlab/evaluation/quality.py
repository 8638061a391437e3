"""Quality beside the scores: over-refusal on harmless prompts, repetition, and the loss on texts of one's own."""

from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.config.fingerprints import quality_files
from alignlab.config.names import QUALITY_FILES
from alignlab.config.parts import Sampling
from alignlab.config.schema import DatasetConfig
from alignlab.data.benign import BenignPrompt, benign_prompts, documents
from alignlab.data.files import read_rows
from alignlab.engine.scoring.logps import response_logps
from alignlab.evaluation.measure import Policy
from alignlab.evaluation.scored import Said, draw_samples, read_said
from alignlab.evaluation.texts import refuses
from alignlab.io.atomic import write_jsonl
from alignlab.io.hashes import file_hash, text_id
from alignlab.io.records import renewable
from alignlab.models.adapters import adapter_id
from alignlab.models.base import Base, position_limit
from alignlab.models.prompts import Encoded
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.stats import paired_difference, ratio_interval, share_interval

BENIGN_SAMPLES, BENIGN, TEXT_LOSS = QUALITY_FILES
CHUNK_TOKENS = 512
"""Of a text that are read at once; the first one of each chunk is not predicted."""
CHUNKS_AT_ONCE = 64
"""Between two moments at which a killed run goes on."""


def measure_quality(
    policy: Policy, run: RunFolder, outcome: Outcome, *, settings: DatasetConfig, sampling: Sampling, is_toy: bool
) -> None:
    """Fill in `over_refusal` and `text_loss`, as far as dataset.benign and dataset.text name files.

    Args:
        policy: what is measured.
        run: times the stages and keeps the records.
        outcome: takes the metrics.
        settings: of the data.
        sampling: how the policy is sampled.
        is_toy: whether its words are the toy's.
    """
    if settings.benign is not None:
        _over_refusal(policy, run, outcome, benign_prompts(Path(settings.benign)), sampling, is_toy=is_toy)
    if settings.text is not None:
        _text_loss(policy, run, outcome, Path(settings.text))
    outcome.extra["quality"] = quality_files(settings)


def _over_refusal(
    policy: Policy,
    run: RunFolder,
    outcome: Outcome,
    asked: Sequence[BenignPrompt],
    sampling: Sampling,
    *,
    is_toy: bool,
) -> None:
    prompts = {one.id: one.prompt for one in asked}
    with run.stage("over-refusal"):
        draw_samples(policy, run, prompts, sampling, BENIGN_SAMPLES)
    said, types = read_said(run.path, prompts, BENIGN_SAMPLES), {one.id: one.type for one in asked}
    refused = [refuses(row.prompt, row.response, is_toy=is_toy) for row in said]
    rows = [
        {"id": row.id, "group": row.group, "type": types[row.group], "refused": value}
        for row, value in zip(said, refused, strict=True)
    ]
    write_jsonl(run.path / BENIGN, rows)
    outcome.artifacts |= {"benign": BENIGN, "benign_generations": BENIGN_SAMPLES}
    outcome.metrics["over_refusal"] = share_interval(refused, [row.group for row in said]).as_record()
    by_type = _by_type(said, refused, types)
    if by_type:
        outcome.extra["over_refusal_by_type"] = by_type
    mean = outcome.metrics["over_refusal"]["mean"]
    say(f"over-refusal: {mean:.3g} of {len(said)} answers to {len(prompts)} harmless prompts")


def _by_type(
    said: Sequence[Said], refused: Sequence[float], types: Mapping[str, str | None]
) -> dict[str, dict[str, Any]]:
    found = {}
    for kind in sorted({kind for kind in types.values() if kind is not None}):
        part = [(value, row.group) for row, value in zip(said, refused, strict=True) if types[row.group] == kind]
        found[kind] = share_interval([value for value, _ in part], [group for _, group in part]).as_record()
    return found


def _text_loss(policy: Policy, run: RunFolder, outcome: Outcome, path: Path) -> None:
    """Nats a token over chunks of the texts, with an interval over documents."""
    chunks = _chunks(policy.base, path)
    made_for = {
        "base": policy.base.id,
        "adapter": None if policy.adapter is None else adapter_id(policy.adapter),
        "text": file_hash(path),
        "chunk": CHUNK_TOKENS,
    }
    with renewable(run.path / TEXT_LOSS, list(chunks), made_for=made_for, say=say) as records:
        missing = records.missing()
        if missing:
            with run.stage("text loss"), policy.model() as model:
                for batch in _batches(missing):
                    rows = [chunks[name][1] for name in batch]
                    logps = response_logps(model, rows, label="text loss", batch_size=policy.batch_size).tolist()
                    for name, row, logp in zip(batch, rows, logps, strict=True):
                        records.add(
                            {"id": name, "group": chunks[name][0], "nats": -logp, "tokens": len(row.response_ids)}
                        )
        records.finish()
    rows_read = [row for _, row in read_rows(run.path / TEXT_LOSS)]
    columns = ([row[name] for row in rows_read] for name in ("nats", "tokens", "group"))
    outcome.metrics["text_loss"] = ratio_interval(*columns).as_record()
    outcome.artifacts["text_loss"] = TEXT_LOSS


def _chunks(base: Base, path: Path) -> dict[str, tuple[str, Encoded]]:
    """Name -> document and chunk; its first token is read, the others are predicted. A lone token has no loss."""
    longest = min(CHUNK_TOKENS, position_limit(base.model) or CHUNK_TOKENS)
    found = {}
    for document in documents(path):
        ids = base.encoder.tokenizer(document.text)["input_ids"]
        for start in range(0, len(ids), longest):
            part = ids[start : start + longest]
            if len(part) > 1:
                found[text_id(document.id, str(start))] = (document.id, Encoded(part[:1], part[1:]))
    return found


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), CHUNKS_AT_ONCE):
        yield names[start : start + CHUNKS_AT_ONCE]


def quality_changes(folder: Path, reference: Path, measured: Container[str]) -> dict[str, dict[str, Any]]:
    """`NAME_change` of over-refusal and text loss: the policy's minus the reference's on the same prompts and texts.

    Args:
        folder: the run's.
        reference: folder of the reference's evaluation.
        measured: names of the run's artifacts; files that an earlier measurement left are none.
    """
    found: dict[str, dict[str, Any]] = {}
    old, new = (_read(one / BENIGN) if "benign" in measured else [] for one in (reference, folder))
    if old and new:
        sides = [([row["refused"] for row in rows], [row["group"] for row in rows]) for rows in (old, new)]
        found["over_refusal_change"] = paired_difference(sides[0], sides[1], shares=True).as_record()
    read = (_read(one / TEXT_LOSS) if "text_loss" in measured else [] for one in (reference, folder))
    before, after = ({row["id"]: row for row in rows} for rows in read)
    shared = [name for name in after if name in before]
    if shared:
        nats = [after[name]["nats"] - before[name]["nats"] for name in shared]
        tokens, groups = ([after[name][key] for name in shared] for key in ("tokens", "group"))
        found["text_loss_change"] = ratio_interval(nats, tokens, groups).as_record()
    return found


def _read(file: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(file)] if file.exists() else []
