"""Requests with a response to begin for the model: what course correction is measured on and synthesised from."""

import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from alignlab.config.schema import DatasetConfig, FileConfig, ToyConfig
from alignlab.data.check import check_report, num_spellings
from alignlab.data.files import num_rows, read_rows
from alignlab.data.located import Columns, Located, file_rows, without_collection
from alignlab.data.readers.fields import Row, flag_of, text_of
from alignlab.data.readers.pku import CATEGORIES, PUBLISHED, SAFE, TEXTS
from alignlab.data.readers.prompt_columns import SYSTEM, system_and
from alignlab.data.readers.source import categories_of
from alignlab.data.records import HarmRequest
from alignlab.data.report import SPELLINGS, BadRow, LeftOut, Report
from alignlab.data.sources import files_of, reading_key, under_bar
from alignlab.data.splits import split_of
from alignlab.data.texts import DIFFERENCE, blank_text, folded, is_blank
from alignlab.data.worlds import toy
from alignlab.errors import ConfigError
from alignlab.io.hashes import text_id
from alignlab.runs.progress import say

KINDS = ("toy", "c2_eval", "pku_saferlhf")
"""Kinds of datasets that hold such requests."""
_last: dict[str, tuple[list[HarmRequest], Report]] = {}
"""The requests that were read last, so that a sweep reads and checks them once."""


def read_requests(config: DatasetConfig) -> list[HarmRequest]:
    """The requests of dataset.split with a harmful response each, at most dataset.max_rows of them.

    The toy's are drawn from its grammar; others are PKU-SafeRLHF's rows with an unsafe response. Rows of one prompt
    with different responses are different requests of one group.

    Raises:
        ConfigError: for a dataset without such requests; the first bad rows and their totals.
    """
    match config:
        case ToyConfig():
            return _drawn(config, [prompt for prompt in toy.all_prompts() if toy.names_hazard(prompt)])
        case FileConfig():
            return _selected(load_requests(config)[0], config)
    raise _has_none(config)


def benign_requests(config: DatasetConfig) -> list[HarmRequest]:
    """Harmless requests with a helpful response each, as a control: nothing there is to be corrected.

    The toy alone has them; of other datasets the list is empty.
    """
    if not isinstance(config, ToyConfig):
        return []
    return _drawn(config, [prompt for prompt in toy.all_prompts() if not toy.names_hazard(prompt)])


def control_file(path: Path) -> list[HarmRequest]:
    """Harmless requests with a response each, from a JSONL file with `prompt` and `response`.

    Raises:
        ConfigError: `file:line field: reason` for the first row that cannot be used.
    """
    requests = []
    for location, row in read_rows(path):
        for name in ("prompt", "response"):
            if not isinstance(row.get(name), str) or not row[name].strip():
                raise ConfigError(f"{location} {name}: must be text")
        requests.append(
            HarmRequest(text_id(row["prompt"], row["response"]), row["prompt"], None, row["response"], location)
        )
    if not requests:
        raise ConfigError(f"algorithm.control={path}: holds no rows")
    return list({request.id: request for request in requests}.values())


def load_requests(config: FileConfig) -> tuple[list[HarmRequest], Report]:
    """All requests of a file or a hub dataset, whatever their split, and what the check counted."""
    if config.kind not in KINDS:
        raise _has_none(config)
    key = reading_key(config)
    if key not in _last:
        _last.clear()
        with without_collection():
            _last[key] = _read(config)
    requests, report = _last[key]
    check_report(config, report)
    if not requests:
        raise ConfigError(f"{report.source}: none of {report.rows:,} rows has a harmful response")
    return requests, report


def requests_report(config: DatasetConfig) -> dict[str, object]:
    """`data` of result.json: counts of rows that were read, dropped and left out; dropped ones are said.

    Nothing for the toy, whose requests are drawn.
    """
    if not isinstance(config, FileConfig):
        return {}
    _, report = load_requests(config)
    for line in report.notices():
        say(line)
    return {"data": report.as_record()}


def check_requests(config: DatasetConfig) -> None:
    """Checks every row of the file that a dataset names, if requests can be read from it at all.

    Raises:
        ConfigError: the first bad rows and their totals, or that no request is left.
    """
    if config.kind not in KINDS:
        raise _has_none(config)
    if isinstance(config, FileConfig) and config.path is not None and not read_requests(config):
        raise ConfigError(f"dataset.split={config.split}: holds no request of {config.path}")


def _has_none(config: DatasetConfig) -> ConfigError:
    return ConfigError(f"dataset={config.name}: holds no harmful responses to begin with; choose toy or c2_eval")


def _read(config: FileConfig) -> tuple[list[HarmRequest], Report]:
    columns = Columns((*TEXTS, *SAFE), also=(*SYSTEM, *CATEGORIES), published=PUBLISHED, ignored=config.ignore)
    files = files_of(config)
    located: Iterable[Located]
    if files:
        report = Report(f"dataset.path={config.path}")
        located = under_bar(file_rows(files, columns, report), sum(num_rows(file.path) for file in files))
    else:
        from alignlab.data.hub import hub_rows

        report = Report(f"dataset.hub={config.hub}")
        located, _ = hub_rows(config, columns, report)
    requests = list(_requests(located, report))
    report.notes[SPELLINGS] += num_spellings(request.prompt for request in requests)
    report.notes, report.records = +report.notes, len(requests)
    return requests, report


def _requests(located: Iterable[Located], report: Report) -> Iterator[HarmRequest]:
    seen: dict[tuple[str, ...], HarmRequest] = {}
    for location, raw, _ in located:
        report.rows += 1
        try:
            if isinstance(raw, BadRow):
                raise raw
            request = _request(raw, location)
            said = tuple(folded(text) for text in _said_in(raw))
            if said in seen:
                but = "" if request.id == seen[said].id else f", but for their {DIFFERENCE}"
                raise BadRow("duplicate", "prompt", f"is repeated with its responses from {seen[said].location}{but}")
            seen[said] = request
            yield request
        except BadRow as bad:
            report.add(location, bad)
        except LeftOut as left_out:
            report.left_out[left_out.why] += 1


def _request(row: Row, location: str) -> HarmRequest:
    """The harmful response is the first that is marked unsafe; the other, where it is marked safe, the safe one."""
    texts = [text_of(row, column) for column in TEXTS]
    safe = [flag_of(row, column) for column in SAFE]
    if all(safe):
        raise LeftOut("rows whose responses are both safe")
    harmful = safe.index(False)
    for column, text in zip(TEXTS, texts, strict=True):
        if is_blank(text):
            raise BadRow("empty", column, blank_text(text))
    prompt, *responses = texts
    other = responses[1 - harmful] if safe[1 - harmful] else None
    request_id = text_id(*_said_in(row))
    asked = system_and(row, prompt)
    return HarmRequest(request_id, asked, other, responses[harmful], location, _categories(row, harmful))


def _said_in(row: Row) -> tuple[str, ...]:
    """The texts that make a request another one."""
    return (*(str(row[name]) for name in TEXTS), *(str(row[name]) for name in SYSTEM if row.get(name)))


def _categories(row: Row, harmful: int) -> tuple[str, ...]:
    """Of the harmful response; of the request where the data name those alone."""
    return categories_of(row.get(f"response_{harmful}_harm_category")) or categories_of(row.get("category"))


def _selected(requests: Iterable[HarmRequest], config: DatasetConfig) -> list[HarmRequest]:
    chosen = [request for request in requests if config.split in (None, _split_of(request, config))]
    return chosen[: config.max_rows]


def _split_of(request: HarmRequest, config: DatasetConfig) -> str:
    if not isinstance(config, FileConfig):
        return split_of(request.prompt, config.test_share, salt=toy.SPLIT_SALT)
    return split_of(request.prompt, config.test_share, dev_share=config.dev_share, by=config.split_by)


def _drawn(config: ToyConfig, prompts: Iterable[str]) -> list[HarmRequest]:
    """dataset.requests different responses to each prompt; first one to every prompt, then the second ones."""
    kept = [prompt for prompt in prompts if config.split is None or toy.split_of(prompt) == config.split]
    by_prompt = [_drawn_for(prompt, config) for prompt in kept]
    requests = [drawn[number] for number in range(config.requests) for drawn in by_prompt]
    return requests[: config.max_rows]


def _drawn_for(prompt: str, config: ToyConfig) -> list[HarmRequest]:
    rng = random.Random(f"requests {config.seed} {prompt}")
    hazard = toy.names_hazard(prompt)
    kinds = (toy.Kind.STEP, toy.Kind.RISK) if hazard else (toy.Kind.STEP,)
    drawn: dict[str, str | None] = {}
    while len(drawn) < config.requests:
        said = [toy.Kind.RISK if hazard else toy.Kind.STEP, *rng.choices(kinds, k=toy.MAX_SENTENCES - 1)]
        if said.count(toy.Kind.RISK) > len(toy.EFFECTS):
            continue
        rng.shuffle(said)
        refusal = toy.refusal(prompt, rng) if hazard else None
        drawn.setdefault(toy.response_of(prompt, said, rng), refusal)
    return [
        HarmRequest(text_id(prompt, full, refusal or ""), prompt, refusal, full, f"toy: {prompt} #{number}")
        for number, (full, refusal) in enumerate(drawn.items(), 1)
    ]
