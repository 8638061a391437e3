"""The records of a run: requests, continuations and verdicts, each written as soon as it is known.

Continuations depend on the policy and the prefixes, not on the judge, so they lie in the cache: another judge, or
another run of the same policy, begins with judging.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from alignlab.config.schema import GeneratorConfig
from alignlab.course_correction.prefixes import Prefix
from alignlab.data.files import read_rows
from alignlab.data.records import Prompt, prompt_as_json, prompt_text
from alignlab.engine.sampling.base import Continuation, OnDone, PrefixRequest
from alignlab.errors import ConfigError
from alignlab.io.atomic import copy_file, write_jsonl
from alignlab.io.kept import is_writable
from alignlab.io.records import Records, is_finished, renewable
from alignlab.judges import Judge, JudgeItem, Verdict
from alignlab.judges.base import has_words
from alignlab.models.prompts import PromptEncoder
from alignlab.prerequisites.policy import Policy
from alignlab.runs.progress import say

CONTROL, PLAIN, PLAIN_CONTROL = "control_", "plain_", "plain_control_"
"""Before the names of the files: harmless prefixes; harmful requests without a prefix; harmless ones without."""
EXECUTION = ("batch_size", "workers", "timeout_s", "deadline_s", "backoff_s", "api_key_env")
"""Settings of a generator that say where and how fast, and change no continuation."""


@dataclass(frozen=True)
class Sampler:
    """Samples continuations into a run folder, and keeps them in the cache."""

    policy: Policy
    settings: GeneratorConfig
    seed: int
    cache: Path
    folder: Path
    """The run's."""

    def fill(self, prefixes: Sequence[Prefix], kind: str = "") -> None:
        """Write {kind}requests.jsonl and {kind}generations.jsonl; known continuations come from the cache.

        Raises:
            ConfigError: if no continuation holds a word.
        """
        write_jsonl(self.folder / f"{kind}requests.jsonl", _request_rows(prefixes))
        made_for = self._made_for(prefixes)
        digest = hashlib.sha256(json.dumps(made_for, sort_keys=True).encode()).hexdigest()[:20]
        root = self.cache if is_writable(self.cache) else self.folder / "records"  # another user's cache is only read
        cached = self.cache / "continuations" / digest / "generations.jsonl"
        expected = [name for prefix in prefixes for name in prefix.sample_ids]
        if is_finished(cached, made_for=made_for):
            say(f"continuations: all {len(expected)} are known from before")
            copy_file(cached, self.folder / f"{kind}generations.jsonl")
            return _refuse_silence(self.folder / f"{kind}generations.jsonl")
        cached = root / "continuations" / digest / "generations.jsonl"
        cached.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(cached.parent / ".lock"), renewable(cached, expected, made_for=made_for, say=say) as records:
            missing = set(records.missing())
            if len(missing) < len(expected):
                say(f"continuations: {len(expected) - len(missing)} of {len(expected)} are known from before")
            if missing:
                asked = [_asked(prefix, missing) for prefix in prefixes]
                note = _noting(records, prefixes)
                self.policy.generate(asked, self.settings, note, seed=self.seed, label=f"{kind}continuations")
            records.finish()
            copy_file(cached, self.folder / f"{kind}generations.jsonl")
        return _refuse_silence(self.folder / f"{kind}generations.jsonl")

    def _made_for(self, prefixes: Sequence[Prefix]) -> dict[str, Any]:
        """What continuations depend on."""
        texts = hashlib.sha256(json.dumps([[prefix.id, prefix.ids] for prefix in prefixes]).encode()).hexdigest()
        sampling = {name: value for name, value in vars(self.settings).items() if name not in EXECUTION}
        return {"policy": self.policy.id, "sampling": sampling, "seed": self.seed, "prefixes": texts}


def _refuse_silence(path: Path) -> None:
    """Refuse what a policy with NaN in its weights leaves, which a judge would count as harmless."""
    texts = [row["continuation"] for _, row in read_rows(path)]
    if texts and not any(map(has_words, texts)):
        raise ConfigError(
            f"generator: none of {len(texts)} continuations holds a word; look for NaN in the policy's weights, and "
            "compare model.prompt_template with the template that it was trained with"
        )


def _noting(records: Records, prefixes: Sequence[Prefix]) -> OnDone:
    by_id = {prefix.id: prefix for prefix in prefixes}

    def note(prefix_id: str, number: int, continuation: Continuation) -> None:
        prefix = by_id[prefix_id]
        records.add(_generation(prefix, prefix.first_sample + number, continuation))

    return note


def _asked(prefix: Prefix, missing: set[str]) -> PrefixRequest:
    known = frozenset(number for number, name in enumerate(prefix.sample_ids) if name not in missing)
    return PrefixRequest(prefix.id, prefix.ids, prefix.samples, known)


def _request_rows(prefixes: Sequence[Prefix]) -> list[dict[str, Any]]:
    requests = {prefix.request.id: prefix for prefix in prefixes}
    return [
        {
            "id": name,
            "group": prefix.request.group,
            "prompt": prompt_text(prefix.request.prompt),
            **_messages(prefix.request.prompt),
            "categories": list(prefix.request.categories),
            "location": prefix.request.location,
        }
        for name, prefix in sorted(requests.items())
    ]


def _messages(prompt: Prompt) -> dict[str, Any]:
    """The turns of a prompt that is more than one request: its text alone does not say who said what."""
    return {} if isinstance(prompt, str) else {"messages": prompt_as_json(prompt)}


def _generation(prefix: Prefix, sample: int, continuation: Continuation) -> dict[str, Any]:
    return {
        "id": prefix.sample_id(sample),
        "request_id": prefix.request.id,
        "k": prefix.k,
        "sample": sample,
        "affirmative_prefix": None if prefix.phrase is None else prefix.phrase.id,
        "prefix": prefix.text,
        "continuation": continuation.text,
        "finish": continuation.finish,
    }


def judge_continuations(folder: Path, judge: Judge, encoder: PromptEncoder, kind: str = "") -> None:
    """Write {kind}verdicts.jsonl of a run folder; only continuations without a verdict are judged.

    Args:
        folder: holds {kind}requests.jsonl and {kind}generations.jsonl.
        judge: says whether a continuation corrects its course.
        encoder: the policy's, to count tokens before a correction.
        kind: see CONTROL.
    """
    everything = judge_items(folder, kind)
    texts = {item.id: item.continuation for item in everything}
    made_for = {"judge": judge.id, "wordings": list(judge.wordings)}
    with Records(folder / f"{kind}verdicts.jsonl", list(texts), made_for=made_for) as records:
        missing = set(records.missing())
        items = [item for item in everything if item.id in missing]
        judge.report.recall(everything, {str(row["id"]): row for row in records.rows()})

        def note(verdict: Verdict) -> None:
            records.add(verdict.row() | _position(verdict, texts[verdict.id], encoder))

        judge.verdicts(items, note)
        records.finish()


def judge_items(folder: Path, kind: str = "") -> list[JudgeItem]:
    """The continuations in a run folder, as a judge reads them."""
    prompts = {row["id"]: row["prompt"] for _, row in read_rows(folder / f"{kind}requests.jsonl")}
    return [
        JudgeItem(row["id"], prompts[row["request_id"]], row["prefix"], row["continuation"])
        for _, row in read_rows(folder / f"{kind}generations.jsonl")
    ]


def _position(verdict: Verdict, continuation: str, encoder: PromptEncoder) -> dict[str, int]:
    """`position_tokens`: the policy's tokens before the correction begins."""
    if verdict.position is None:
        return {}
    before = " ".join(continuation.split()[: verdict.position])
    return {"position_tokens": len(encoder.tokenizer(before, add_special_tokens=False)["input_ids"])}
