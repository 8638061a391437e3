"""Write the drafted responses in the policy's words, and have corrections judged; each response is a record."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.config.schema import GeneratorConfig
from alignlab.data.rankings import HARMFUL
from alignlab.data.records import prompt_as_json, prompt_text
from alignlab.engine.sampling.base import Continuation, PrefixRequest
from alignlab.errors import ConfigError
from alignlab.io.atomic import write_jsonl
from alignlab.io.records import Records
from alignlab.judges import Judge, JudgeItem
from alignlab.judges.base import has_words
from alignlab.prerequisites.policy import Policy
from alignlab.runs.progress import say
from alignlab.synthesis.drafts import CORRECTED, SAFE, Draft
from alignlab.synthesis.export import rows_of

REQUESTS, RESPONSES, VERDICTS = "requests.jsonl", "responses.jsonl", "verdicts.jsonl"
MOST_WORDLESS = 0.05
"""Largest share of responses that fill the length limit without a word: special tokens alone, as of a broken model."""
MOST_SILENT = 0.9
"""Largest share of responses to which the policy adds nothing. It may end its turn right after a phrase, but not in all
of them."""


def write_requests(path: Path, drafts: Sequence[Draft]) -> None:
    """Write requests.jsonl, sorted by id."""
    rows = {
        draft.request.id: {
            "id": draft.request.id,
            "group": draft.request.group,
            "kind": draft.kind,
            "prompt": prompt_as_json(draft.request.prompt),
            "location": draft.request.location,
        }
        for draft in drafts
    }
    write_jsonl(path, [rows[name] for name in sorted(rows)])


@dataclass(frozen=True)
class Writer:
    """The policy that writes, and how it samples."""

    policy: Policy
    settings: GeneratorConfig
    seed: int

    def write(self, path: Path, drafts: Sequence[Draft]) -> None:
        """Fill responses.jsonl; what a killed run has written is kept.

        Raises:
            ConfigError: if the policy writes next to nothing.
        """
        by_id = {draft.id: draft for draft in drafts}
        with Records(path, list(by_id), made_for=self._made_for(drafts)) as records:
            missing = set(records.missing())
            if len(missing) < len(by_id):
                say(f"responses: {len(by_id) - len(missing)} of {len(by_id)} are known from before")
            asked = []
            for name in sorted(missing):
                if by_id[name].ids:
                    asked.append(PrefixRequest(name, list(by_id[name].ids), 1))
                else:
                    records.add(self._row(by_id[name], None))

            def note(draft_id: str, _: int, continuation: Continuation) -> None:
                records.add(self._row(by_id[draft_id], continuation))

            for drawn in (True, False):
                settings = dataclasses.replace(self.settings, temperature=1.0, top_p=1.0) if drawn else self.settings
                these = [request for request in asked if by_id[request.id].is_sampled == drawn]
                if these:
                    self.policy.generate(these, settings, note, seed=self.seed, label="responses")
            records.finish()
        refuse_silence([(row["written"], row["finish"]) for row in rows_of(path) if row["finish"] is not None])

    def _made_for(self, drafts: Sequence[Draft]) -> dict[str, Any]:
        starts = json.dumps([[draft.id, draft.start, draft.ids] for draft in drafts])
        return {
            "policy": self.policy.id,
            "seed": self.seed,
            "sampling": [self.settings.kind, self.settings.temperature, self.settings.top_p],
            "longest": self.settings.max_new_tokens,
            "starts": hashlib.sha256(starts.encode()).hexdigest(),
        }

    def _row(self, draft: Draft, continuation: Continuation | None) -> dict[str, Any]:
        """A row of responses.jsonl. `written` is the policy's part of the response."""
        written = "" if continuation is None else continuation.text
        response = (draft.start + written).strip()
        tokens = self.policy.encoder.tokenizer(response, add_special_tokens=False)["input_ids"]
        phrases = {
            name: None if phrase is None else phrase.id
            for name, phrase in (
                ("affirmative_prefix", draft.affirmative_prefix),
                ("correction_phrase", draft.correction_phrase),
                ("refusal", draft.refusal),
            )
        }
        return {
            "id": draft.id,
            "request_id": draft.request.id,
            "kind": draft.kind,
            "rank": draft.rank,
            "role": draft.role,
            "response": response,
            "written": written,
            "finish": None if continuation is None else continuation.finish,
            "tokens": len(tokens),
            "cut_tokens": None if draft.cut is None else draft.cut.tokens,
            "at_clause": None if draft.cut is None else draft.cut.at_clause,
            "correction_start": draft.correction_start,
            **phrases,
            "seed": self.seed,
            "generator": self.policy.id,
            "revision": self.policy.revision,
        }


def refuse_silence(written: Sequence[tuple[str, str]]) -> None:
    """Refuse what a broken model leaves: empty texts, which would end as a finished data set.

    Args:
        written: (text, finish) of every response that the policy was asked for.

    Raises:
        ConfigError: if more than MOST_WORDLESS fill the limit without a word, or more than MOST_SILENT are empty.
    """
    total = len(written)
    wordless = sum(finish == "length" and not has_words(text) for text, finish in written)
    silent = sum(not has_words(text) for text, _ in written)
    if total and (wordless > MOST_WORDLESS * total or silent > MOST_SILENT * total):
        raise ConfigError(
            f"generator: the policy wrote no word in {silent} of {total} responses; look for NaN in its weights, and "
            "compare model.prompt_template with the template that it was trained with"
        )


def fitted(settings: GeneratorConfig, policy: Policy) -> tuple[GeneratorConfig, int | None]:
    """Settings whose responses take at most half of the policy's context, and the tokens left for what precedes."""
    if policy.context is None:
        return settings, None
    limit = min(settings.max_new_tokens, policy.context // 2)
    return dataclasses.replace(settings, max_new_tokens=limit), policy.context - limit


def judge_responses(folder: Path, judge: Judge, drafts: Sequence[Draft]) -> None:
    """Fill verdicts.jsonl: does a corrected response correct its course, and the policy's own safe one refuse?

    Args:
        folder: of the run.
        judge: who says it.
        drafts: responses without verdicts.
    """
    asked = {draft.id: draft for draft in drafts if draft.kind == HARMFUL and _is_judged(draft)}
    with Records(folder / VERDICTS, list(asked), made_for={"judge": judge.id}) as records:
        missing = set(records.missing())
        everything = [
            _item(asked[row["id"]], row["written"]) for row in rows_of(folder / RESPONSES) if row["id"] in asked
        ]
        judge.report.recall(everything, {str(row["id"]): row for row in records.rows()})
        judge.verdicts([item for item in everything if item.id in missing], lambda verdict: records.add(verdict.row()))
        records.finish()


def _is_judged(draft: Draft) -> bool:
    return draft.role == CORRECTED or (draft.role == SAFE and not draft.start)


def _item(draft: Draft, written: str) -> JudgeItem:
    said = (draft.start + written)[len(draft.begun) :]
    return JudgeItem(draft.id, prompt_text(draft.request.prompt), draft.begun, said)
