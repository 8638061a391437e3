"""The front's points on any data: a policy's own responses to held-out prompts, scored, beside the reference's."""

import hashlib
import json
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from alignlab.config.parts import Sampling
from alignlab.config.uses import NOT_IN_RUN_ID
from alignlab.data.files import read_rows
from alignlab.data.records import Prompt, RankedRow, as_said, prompt_as_json
from alignlab.engine.sampling.base import Continuation, PrefixRequest, sample_id
from alignlab.engine.sampling.generate import generate
from alignlab.engine.scoring.logps import divergence
from alignlab.errors import ConfigError
from alignlab.evaluation.length import gain_at_equal_length
from alignlab.evaluation.measure import GENERATIONS, SCORES, Policy
from alignlab.evaluation.texts import repetition
from alignlab.io.atomic import remove_path, write_jsonl
from alignlab.io.hashes import text_id
from alignlab.io.records import Records, renewable
from alignlab.judges.base import UNSCORED, has_words
from alignlab.models.adapters import adapter_id
from alignlab.models.prompts import Encoded, PromptEncoder
from alignlab.rewards.base import Reward
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome, finished_result
from alignlab.stats import mean_interval, paired_difference, ratio_interval, share_interval

LENGTH_QUANTILE = 0.95
MOST_TOKENS = 512
DESCRIBED = ("tokens", "repetition")
"""Columns of scores.jsonl that describe the responses themselves."""
REWARD = "_reward"
"""Ends the column of a scorer."""


@dataclass(frozen=True)
class Said:
    """One response that the policy gave."""

    id: str
    group: str
    """Of its prompt."""
    prompt: Prompt
    response: str
    tokens: list[int]
    """Of the response, its end included; empty where they were not kept."""
    finish: str
    """"stop" if the policy ended its turn, "length" if generator.max_new_tokens did."""

    @property
    def text(self) -> str:
        """The response as rewards take it: one that was cut has no end."""
        return as_said(self.response, self.finish)


def held_out_prompts(rows: Sequence[RankedRow], most: int) -> dict[str, Prompt]:
    """Group -> prompt, at most so many, the same ones whatever the order of the rows."""
    prompts = {row.group: row.prompt for row in rows}
    return {group: prompts[group] for group in sorted(prompts)[:most]}


def response_limit(rows: Sequence[RankedRow], encoder: PromptEncoder) -> int:
    """Tokens that LENGTH_QUANTILE of the rows' responses fit into, a multiple of 8, at most MOST_TOKENS.

    Raises:
        ConfigError: if the rows hold no responses.
    """
    texts = dict.fromkeys((row.prompt, text) for row in rows for text in row.responses)
    lengths = [len(row.response_ids) for row in encoder.encode_all(list(texts))]
    if not lengths:
        raise ConfigError(
            "generator.max_new_tokens=0: the data holds no responses to take a length from; give a number"
        )
    needed = float(np.quantile(lengths, LENGTH_QUANTILE))
    return min(MOST_TOKENS, 8 * max(1, math.ceil(needed / 8)))


def sampled(
    policy: Policy,
    run: RunFolder,
    prompts: Mapping[str, Prompt],
    sampling: Sampling,
    categories: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Said]:
    """Sample the policy; what an earlier attempt has sampled is kept. Write generations.jsonl, and KL to scores.jsonl.

    Args:
        policy: what is sampled.
        run: times the stages and keeps the records.
        prompts: group -> prompt.
        sampling: how.
        categories: group -> the categories of its prompt, kept beside the responses.
    """
    ids = draw_samples(policy, run, prompts, sampling, GENERATIONS, categories)
    said = read_said(run.path, prompts)
    if not any(has_words(row.response) for row in said):
        raise ConfigError(
            f"generator: none of {len(said)} responses holds a word; look for NaN in the policy's weights, and compare "
            "model.prompt_template with the template that it was trained with"
        )
    _add_divergence(policy, run, sampling, said, ids)
    return said


def draw_samples(
    policy: Policy,
    run: RunFolder,
    prompts: Mapping[str, Prompt],
    sampling: Sampling,
    name: str,
    categories: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> dict[str, list[int]]:
    """Write a file of responses, of which those that are known from before are not sampled again.

    Harmless prompts come from a file that may have changed since: then their responses are sampled anew.

    Args:
        policy: what is sampled.
        run: times the stages and keeps the records.
        prompts: group -> prompt.
        sampling: how.
        name: of the file in the run folder.
        categories: group -> the categories of its prompt, kept beside the responses.

    Returns:
        Group -> the tokens of its prompt.
    """
    ids = {group: policy.base.encoder.prompt_ids(prompt) for group, prompt in prompts.items()}
    numbers = range(sampling.generator.samples)
    names = [_name(group, number) for group in prompts for number in numbers]
    opened = Records if name == GENERATIONS else partial(renewable, say=say)
    with opened(run.path / name, names, made_for=_made_for(policy, ids, sampling)) as records:
        missing = set(records.missing())
        if missing:
            kind = "held-out" if name == GENERATIONS else "harmless"
            say(f"samples {len(missing)} responses to {len(prompts)} {kind} prompts")
            known = {group: frozenset(n for n in numbers if _name(group, n) not in missing) for group in ids}
            requests = [PrefixRequest(group, ids[group], len(numbers), known[group]) for group in ids]
            with run.stage("sampling"):
                _draw(policy, requests, prompts, sampling, records, categories)
        records.finish()
    return ids


def _draw(
    policy: Policy,
    requests: Sequence[PrefixRequest],
    prompts: Mapping[str, Prompt],
    sampling: Sampling,
    records: Records,
    categories: Mapping[str, Sequence[str]],
) -> None:
    def note(group: str, number: int, drawn: Continuation) -> None:
        record: dict[str, Any] = {"id": _name(group, number), "group": group, "prompt": prompt_as_json(prompts[group])}
        if group in categories:
            record["categories"] = list(categories[group])
        records.add(record | {"response": drawn.text, "finish": drawn.finish, "tokens": drawn.token_ids})

    with policy.model() as model:
        generate(
            model,
            requests,
            config=sampling.generator,
            seed=sampling.seed,
            encoder=policy.base.encoder,
            on_done=note,
            label="sampling",
        )


def read_said(folder: Path, prompts: Mapping[str, Prompt], name: str = GENERATIONS) -> list[Said]:
    """The responses in a run's generations.jsonl, or another such file, in its order.

    Args:
        folder: the run's.
        prompts: group -> prompt; the toy's own records name no group, there a prompt is one.
        name: of the file.
    """
    said = []
    for _, row in read_rows(folder / name):
        group = row.get("group", row["prompt"])
        prompt = prompts.get(group, row["prompt"])
        said.append(Said(row["id"], group, prompt, row["response"], row.get("tokens", []), row.get("finish", "")))
    return said


def _name(group: str, number: int) -> str:
    return text_id(sample_id(group, number))


def _made_for(policy: Policy, ids: Mapping[str, list[int]], sampling: Sampling) -> dict[str, Any]:
    """Everything that the samples depend on."""
    prompts = hashlib.sha256(json.dumps([[group, prefix] for group, prefix in ids.items()]).encode()).hexdigest()
    mixed = [[None if one.adapter is None else adapter_id(one.adapter), one.exponent] for one in policy.mixture]
    return {
        **({"mixture": mixed} if mixed else {}),
        "base": policy.base.id,
        "adapter": None if policy.adapter is None else adapter_id(policy.adapter),
        "sampling": decoding(sampling),
        "seed": sampling.seed,
        "prompts": prompts,
    }


def decoding(sampling: Sampling) -> dict[str, Any]:
    """The settings of a generator that change what is drawn."""
    settings = asdict(sampling.generator)
    return {key: value for key, value in settings.items() if f"generator.{key}" not in NOT_IN_RUN_ID}


def _add_divergence(
    policy: Policy, run: RunFolder, sampling: Sampling, said: Sequence[Said], ids: Mapping[str, list[int]]
) -> None:
    """KL to the reference along every response, into scores.jsonl; none where sampling changes the distribution.

    A finished run's file was checked against its hash; what a killed one left was not, and is worked out again.
    """
    if finished_result(run.path) is None:
        remove_path(run.path / SCORES)
    known = columns_of(run.path)
    if all("kl" in known.get(row.id, {}) for row in said):
        return
    if sampling.generator.temperature != 1 or sampling.generator.top_p != 1:
        say("no KL: generator.temperature and top_p must be 1 to sample the policy")
        return
    kl = [0.0] * len(said)
    if not policy.is_reference:
        rows = [Encoded(ids[row.group], row.tokens) for row in said]
        with run.stage("KL to the reference"), policy.model() as model:
            kl = divergence(model, rows, batch_size=policy.batch_size, label="KL to the reference").kl.double().tolist()
    add_columns(run.path, said, {"kl": kl})


def columns_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Id -> row of scores.jsonl; empty where there is none."""
    file = folder / SCORES
    return {row["id"]: row for _, row in read_rows(file)} if file.exists() else {}


def add_columns(folder: Path, said: Sequence[Said], columns: Mapping[str, Sequence[float | None]]) -> None:
    """Add columns to scores.jsonl, or replace them; a row a response, joined by id.

    Args:
        folder: of the evaluation.
        said: the responses, in order.
        columns: name -> a value a response; None is unknown.
    """
    known = columns_of(folder)
    rows = [
        {"id": row.id, "group": row.group}
        | known.get(row.id, {})
        | {name: values[index] for name, values in columns.items()}
        for index, row in enumerate(said)
    ]
    write_jsonl(folder / SCORES, rows)


def keep_scores_of(scorers: Container[str], folder: Path) -> None:
    """Take the columns of scorers that are no longer asked out of scores.jsonl.

    Args:
        scorers: names of those that are.
        folder: of the evaluation.
    """
    known = columns_of(folder).values()
    gone = {key for row in known for key in row if key.endswith(REWARD) and key.removesuffix(REWARD) not in scorers}
    if gone:
        write_jsonl(folder / SCORES, [{key: row[key] for key in row if key not in gone} for row in known])


def score_said(
    said: Sequence[Said], run: RunFolder, outcome: Outcome, scorers: Iterable[tuple[str, Reward]], *, shares: set[str]
) -> None:
    """`OBJECTIVE_reward` of every scorer: metrics, and columns of scores.jsonl.

    Args:
        said: the responses.
        run: times the stages and keeps the records.
        outcome: takes the metrics.
        scorers: (objective, scorer), one after another, so that only one is in memory.
        shares: objectives whose scores are shares of yes.

    Raises:
        ConfigError: for a scorer that gives no score at all.
    """
    groups = [row.group for row in said]
    for name, scorer in scorers:
        with run.stage("scoring"):
            found = scorer.score([row.prompt for row in said], [row.text for row in said]).double().numpy()
        reasons = scorer.unscored()
        scorer.release()
        values = [None if np.isnan(value) else float(value) for value in found]
        _refuse_useless(name, values)
        add_columns(run.path, said, {f"{name}_reward": values})
        interval = share_interval if name in shares else mean_interval
        outcome.metrics[f"{name}_reward"] = interval(values, groups).as_record()
        record = outcome.extra.setdefault("scorers", {}).setdefault(name, {})
        record["id"] = scorer.id
        if reasons:
            record["unscored"] = reasons
            told = ", ".join(f"{count} {UNSCORED.get(why, why)}" for why, count in reasons.items())
            total = sum(reasons.values())
            say(f"scorers.{name}: {total} of {len(said)} responses are unscored, and in no mean ({told})")
    outcome.artifacts["scores"] = SCORES


def _refuse_useless(name: str, values: Sequence[float | None]) -> None:
    known = [value for value in values if value is not None]
    if not known:
        raise ConfigError(f"scorers.{name}: gave no score to any of {len(values)} responses")
    if len(known) > 1 and len(set(known)) == 1:
        which = "" if len(known) == len(values) else "scored "
        say(f"warning: scorers.{name}: gives all {len(known)} {which}responses the score {known[0]:g}")


def describe(said: Sequence[Said], folder: Path, outcome: Outcome) -> None:
    """Metrics of the responses themselves: KL, KL per token, length, repetition, and the shares that are cut or empty.

    Args:
        said: the responses.
        folder: the run's, with the KL in its scores.jsonl.
        outcome: takes the metrics.
    """
    groups, lengths = [row.group for row in said], [float(len(row.tokens)) for row in said]
    rows = columns_of(folder)
    if all("kl" in rows.get(row.id, {}) for row in said):
        kl = [float(rows[row.id]["kl"]) for row in said]
        outcome.metrics["kl"] = mean_interval(kl, groups).as_record()
        outcome.metrics["kl_per_token"] = ratio_interval(kl, lengths, groups).as_record()
    repeated = [repetition(row.response) for row in said]
    add_columns(folder, said, {"tokens": lengths, "repetition": repeated})
    outcome.metrics["repetition"] = mean_interval(repeated, groups).as_record()
    outcome.metrics["tokens"] = mean_interval(lengths, groups).as_record()
    outcome.metrics["cut"] = share_interval([float(row.finish == "length") for row in said], groups).as_record()
    outcome.metrics["empty"] = share_interval([float(not has_words(row.response)) for row in said], groups).as_record()


def against_reference(folder: Path, reference: Path, outcome: Outcome, shares: set[str]) -> None:
    """`OBJECTIVE_gain`: the score minus the reference's on the same prompts, paired by prompt; also at equal length.

    `NAME_change` is the same of the responses' tokens and repetition.

    Args:
        folder: the run's.
        reference: folder of the reference's evaluation.
        outcome: takes the metrics.
        shares: objectives whose scores are shares of yes.
    """
    own, other = columns_of(folder).values(), columns_of(reference).values()

    def sides(column: str) -> Iterator[tuple[list[float | None], list[str]]]:
        """Values and groups of the reference and of the policy."""
        return (([row.get(column) for row in rows], [row["group"] for row in rows]) for rows in (other, own))

    for column in DESCRIBED:
        before, after = sides(column)
        outcome.metrics[f"{column}_change"] = paired_difference(before, after).as_record()
    for name in outcome.extra.get("scorers", {}):
        before, after = sides(f"{name}_reward")
        outcome.metrics[f"{name}_gain"] = paired_difference(before, after, shares=name in shares).as_record()
        equal = None if name in shares else gain_at_equal_length(f"{name}_reward", list(own), list(other))
        if equal is not None:
            outcome.metrics[f"{name}_gain_at_equal_length"] = equal.as_record()
