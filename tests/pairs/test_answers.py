"""Answers are drawn once and resumed; empty ones, copies and prompts without room are counted and left out."""

import pytest

from alignlab.config.parts import ModelSource
from alignlab.config.schema import LocalGeneratorConfig
from alignlab.data.records import group_of
from alignlab.data.worlds import toy
from alignlab.engine.sampling.base import Continuation
from alignlab.errors import ConfigError
from alignlab.models.prompts import PromptEncoder
from alignlab.models.scratch import bpe_tokenizer
from alignlab.pairs import answers as module
from alignlab.pairs.answers import Sampler, answers_of, fitting_prompts, sample_answers
from alignlab.pairs.comparable import COPY, EMPTY, LONE, comparable
from alignlab.pairs.export import PairCounts, PairRow, count_pairs
from alignlab.prerequisites.policy import Policy

PROMPTS = {group_of(prompt): ("train", prompt) for prompt in toy.all_prompts()[:5]}


def generator(samples=3):
    return LocalGeneratorConfig(
        prompts=1, kind="transformers", samples=samples, temperature=1.0, top_p=1.0, max_new_tokens=6, batch_size=4
    )


@pytest.fixture
def counted(base, monkeypatch):
    """Answers of the tiny random model; the calls of its generator, and a call at which it is switched off."""
    calls = {"answers": 0, "stops_at": None}

    class Counting(Policy):
        def generate(self, requests, settings, on_done, **options):
            def note(*done):
                if calls["answers"] == calls["stops_at"]:
                    raise KeyboardInterrupt
                calls["answers"] += 1
                on_done(*done)

            super().generate(requests, settings, note, **options)

    class Opened:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return Counting(base.model, base.encoder, base.id, None, 128)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(module, "policy_under_test", Opened)
    return calls


def sampler(samples=3, sources=(None,)):
    source = ModelSource(None, None, "float32", "cpu", False, ())
    ids = tuple(str(one or "") for one in sources)
    return Sampler(source, {"path": "tiny"}, sources, ids, generator(samples), seed=0, max_length=60)


def test_answers_are_drawn_once(base, counted, tmp_path):
    file, drawn = sample_answers(PROMPTS, base.encoder, sampler(), tmp_path)
    assert drawn == counted["answers"] == 15
    assert sample_answers(PROMPTS, base.encoder, sampler(), tmp_path) == (file, 0)
    assert counted["answers"] == 15
    records = list(answers_of(file))
    assert [record["id"] for record in records] == sorted(f"{key}-0-{number}" for key in PROMPTS for number in range(3))
    assert {record["finish"] for record in records} <= {"stop", "length"}


def test_a_killed_run_draws_only_the_rest_and_the_same(base, counted, tmp_path):
    counted["stops_at"] = 7
    with pytest.raises(KeyboardInterrupt):
        sample_answers(PROMPTS, base.encoder, sampler(), tmp_path / "killed")
    counted["stops_at"] = None
    file, drawn = sample_answers(PROMPTS, base.encoder, sampler(), tmp_path / "killed")
    assert drawn == 8
    whole, _ = sample_answers(PROMPTS, base.encoder, sampler(), tmp_path / "whole")
    assert file.read_bytes() == whole.read_bytes()


def test_each_source_answers_and_has_randomness_of_its_own(base, counted, tmp_path):
    file, _ = sample_answers(PROMPTS, base.encoder, sampler(sources=(None, "adapter")), tmp_path)
    by_source = {0: [], 1: []}
    for record in answers_of(file):
        by_source[record["source"]].append(record["response"])
    assert len(by_source[0]) == len(by_source[1]) == 15
    assert by_source[0] != by_source[1]


@pytest.mark.parametrize("template", ["USER: {raw_prompt} ASSISTANT:", "USER: {raw_prompt} ASSISTANT: "])
def test_an_answer_encodes_to_the_tokens_that_were_drawn(template, counted, tmp_path, monkeypatch):
    tokenizer = bpe_tokenizer(["USER: where is the red box ASSISTANT: on the table"], 400)
    encoder = PromptEncoder(tokenizer, template)
    texts = [" on the table", "  on\n", " on the table "]
    end = tokenizer.eos_token_id
    drawn = [[*tokenizer(text)["input_ids"][1:], end] for text in texts]  # the first is BOS

    def generate(_, requests, settings, on_done, **options):
        for number, tokens in enumerate(drawn):
            on_done(requests[0].id, number, Continuation(tokens, tokenizer.decode(tokens[:-1]), "stop"))

    monkeypatch.setattr(Policy, "generate", generate)
    prompts = {"p": ("train", "where is the red box")}
    file, _ = sample_answers(prompts, encoder, sampler(), tmp_path)
    answers = [record["response"] for record in answers_of(file)]
    again = [encoder.encode("where is the red box", answer).response_ids for answer in answers]
    assert again == drawn


def test_every_end_token_ends_an_answer(base, tmp_path, counted, monkeypatch):
    """TRL #7039: a model with several end tokens; whichever comes, the answer has ended and was not cut."""
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", list(range(2, 50)))
    file, _ = sample_answers(PROMPTS, base.encoder, sampler(samples=8), tmp_path)
    records = list(answers_of(file))
    early = [record for record in records if record["tokens"] < 6]
    assert len(early) > 20
    assert {record["finish"] for record in early} == {"stop"}


def test_prompts_without_room_are_counted(base, capfd):
    prompts = {"train": ["tell me", "tell me about dog " * 9]}
    fitting, too_long = fitting_prompts(prompts, base.encoder, max_length=30, max_new_tokens=6)
    assert list(fitting.values()) == [("train", "tell me")]
    assert too_long == 1
    said = "trainer.max_length=30: 1 of 2 prompts leave no room for generator.max_new_tokens=6, left out"
    assert said in capfd.readouterr().out
    with pytest.raises(ConfigError, match=r"trainer.max_length=7: 2 of 2 prompts leave no room .*; the shortest takes"):
        fitting_prompts(prompts, base.encoder, max_length=7, max_new_tokens=6)


def answer(number, response, prompt="p", **changed):
    given = {"id": f"{prompt}-0-{number}", "prompt_id": prompt, "split": "train", "source": 0, "prompt": prompt}
    return {**given, "response": response, "finish": "stop", "tokens": len(response.split()), **changed}


def test_empty_answers_and_copies_are_left_out_and_counted():
    long = "first put the kettle on the stove then choose a cup and a tea that suits the hour of the day"
    answers = [answer(0, ""), answer(1, long), answer(2, f" {long}"), answer(3, f"{long} now"), answer(4, "no")]
    answers += [answer(0, "alone", "q"), answer(1, "\u200b", "q")]
    found = comparable(answers, 0.9)
    assert [one["id"] for one in found.by_prompt["p"]] == ["p-0-1", "p-0-4"]
    assert found.left_out == {EMPTY: 2, COPY: 2, LONE: 1}
    assert len(comparable(answers, None).by_prompt["p"]) == 3


def test_nothing_to_compare_is_one_line():
    with pytest.raises(ConfigError, match="generator: 4 of 4 answers are empty; look for NaN"):
        comparable([answer(number, " ") for number in range(4)], 0.9)
    with pytest.raises(ConfigError, match="generator: no prompt has two different answers"):
        comparable([answer(number, "the same") for number in range(4)], 0.9)


def test_the_card_knows_how_long_chosen_and_rejected_are():
    """A scorer that pays for length is seen in the means (eric-mitchell/dpo #35)."""
    answers = answer(0, "one two three"), answer(1, "one", finish="length")
    rows = [PairRow(answers, {"long": (3.0, 1.0), "short": (1.0, 3.0)}, {"long": 0, "short": 1})]
    counts = PairCounts(1, 2, found := comparable(answers, None).left_out)
    count_pairs(rows, counts)
    assert counts.tokens["long"] == {"chosen": 3, "rejected": 1}
    assert counts.cut["long"] == {"chosen": 0, "rejected": 1}
    assert counts.tokens["short"] == {"chosen": 1, "rejected": 3}
    assert (counts.agree["long, short"], counts.both["long, short"]) == (0, 1)
    assert found == {COPY: 0}


def test_an_end_token_within_the_prompt_ends_no_answer(base, counted, tmp_path):
    """TRL #6802: asked over prompt and answer, "did it end?" is always yes where the template ends each turn by EOS."""

    class EndsEachTurn:
        response_text = base.encoder.response_text

        def prompt_ids(self, prompt):
            return [*base.encoder.prompt_ids(prompt), base.encoder.end_id]

    file, _ = sample_answers(PROMPTS, EndsEachTurn(), sampler(samples=8), tmp_path)
    cut = [record for record in answers_of(file) if record["tokens"] == 6]
    assert any(record["finish"] == "length" for record in cut)
