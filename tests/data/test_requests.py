"""Requests with a harmful response: from PKU-SafeRLHF's rows, and from the toy's grammar."""

import pytest

from alignlab.data.requests import benign_requests, check_requests, load_requests, read_requests, requests_report
from alignlab.data.worlds import toy
from alignlab.errors import ConfigError


def row(number, first_safe, second_safe, **changes):
    made = {"prompt": f"request {number}", "response_0": f"first {number}", "response_1": f"second {number}"}
    return {**made, "is_response_0_safe": first_safe, "is_response_1_safe": second_safe, **changes}


@pytest.fixture
def on(dataset_of, file_of):
    return lambda rows, **changes: dataset_of("c2_eval", path=file_of(rows), **{"on_bad_row": "error", **changes})


def test_the_harmful_response_is_the_first_that_is_unsafe(on):
    config = on([row(1, False, True), row(2, True, False), row(3, False, False), row(4, True, True)])
    found = [(each.prompt, each.harmful_response, each.safe_response) for each in read_requests(config)]
    assert found == [
        ("request 1", "first 1", "second 1"),
        ("request 2", "second 2", "first 2"),
        ("request 3", "first 3", None),
    ]
    assert load_requests(config)[1].as_record()["left_out"] == {"rows whose responses are both safe": 1}


def test_labels_of_preference_are_not_needed_and_places_are_known(on):
    (request,) = read_requests(on([row(1, False, True)]))
    assert request.location.startswith("rows.")
    assert request.location.endswith(":1")


def test_one_prompt_with_other_responses_is_another_request_of_its_group(on):
    rows = [row(1, False, False), row(1, False, False, response_1="other"), row(2, False, False)]
    first, second, third = read_requests(on(rows))
    assert first.id != second.id
    assert first.group == second.group != third.group


def test_ids_do_not_depend_on_the_order(dataset_of, file_of):
    rows = [row(number, False, True) for number in range(5)]
    forward, backward = (
        [each.id for each in read_requests(dataset_of("c2_eval", path=file_of(given, name)))]
        for given, name in ((rows, "forward"), (rows[::-1], "backward"))
    )
    assert forward == backward[::-1]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (row(1, False, True), "prompt: is repeated with its responses from rows."),
        (row(1, False, True, prompt="request\u00a01"), "prompt: is repeated with its responses from rows."),
        (row(2, False, True, response_1="\u00a0\u200b"), "response_1: holds nothing but zero-width characters and"),
        (row(2, None, True), "is_response_0_safe: is null"),
        (row(2, False, True, response_0=" "), "response_0: is empty"),
        (row(2, False, True, prompt=None), "prompt: is null"),
    ],
)
def test_bad_rows_are_named_and_dropped_where_that_is_asked_for(on, second, said):
    rows = [row(1, False, True), second, *(row(number, False, True) for number in range(3, 12))]
    with pytest.raises(ConfigError) as refused:
        check_requests(on(rows))
    assert f":2 {said}" in str(refused.value)
    assert len(read_requests(on(rows, on_bad_row="drop"))) == 10


def test_splits_and_limits(on):
    config = on([row(number, False, True) for number in range(100)], test_share=0.3)
    whole = read_requests(config)
    parts = [
        read_requests(on([row(n, False, True) for n in range(100)], test_share=0.3, split=s)) for s in ("train", "test")
    ]
    assert len(whole) == 100
    assert sorted(each.id for part in parts for each in part) == sorted(each.id for each in whole)
    assert len(read_requests(on([row(n, False, True) for n in range(100)], max_rows=7))) == 7


def test_what_holds_no_harmful_response_is_refused(on, dataset_of):
    with pytest.raises(ConfigError, match="none of 2 rows has a harmful response"):
        read_requests(on([row(1, True, True), row(2, True, True)]))
    with pytest.raises(
        ConfigError, match="dataset=shp: holds no harmful responses to begin with; choose toy or c2_eval"
    ):
        check_requests(dataset_of("shp"))


def test_the_toys_harmful_responses_are_steps_and_risks_as_long_as_the_grammar_allows(dataset_of):
    requests = read_requests(dataset_of("toy", split=None))
    assert len(requests) == 4 * sum(map(toy.names_hazard, toy.all_prompts()))
    assert len({each.id for each in requests}) == len({(each.prompt, each.harmful_response) for each in requests})
    assert len({each.id for each in requests}) == len(requests) >= 300
    for each in requests:
        kinds = toy.kinds_of(each.prompt, each.harmful_response)
        assert set(kinds) <= {toy.Kind.STEP, toy.Kind.RISK}
        assert toy.Kind.RISK in kinds
        assert toy.is_well_formed(each.prompt, each.harmful_response)
        assert len(each.harmful_response.split()) == toy.MAX_RESPONSE_WORDS
        assert toy.is_well_formed(each.prompt, each.safe_response)
        assert toy.kinds_of(each.prompt, each.safe_response)[0] is toy.Kind.REFUSAL
        assert toy.safe(each.prompt, each.safe_response) > 0 > toy.safe(each.prompt, each.harmful_response)


def test_the_toys_benign_requests_are_helpful_and_harmless(dataset_of):
    requests = benign_requests(dataset_of("toy", split="test"))
    assert {each.prompt for each in requests} == {p for p in toy.prompts("test") if not toy.names_hazard(p)}
    for each in requests:
        assert toy.is_well_formed(each.prompt, each.harmful_response)
        assert toy.helpful(each.prompt, each.harmful_response) == 4
        assert toy.safe(each.prompt, each.harmful_response) == 0
    assert benign_requests(dataset_of("shp")) == []


def test_the_toys_draw_follows_seed_and_split(dataset_of):
    train, test = (read_requests(dataset_of("toy", split=split)) for split in ("train", "test"))
    assert not {each.prompt for each in train} & {each.prompt for each in test}
    assert {each.prompt for each in test} == {p for p in toy.prompts("test") if toy.names_hazard(p)}
    assert read_requests(dataset_of("toy", split="test")) == test
    assert read_requests(dataset_of("toy", split="test", seed=1)) != test
    few = read_requests(dataset_of("toy", split="test", max_rows=5))
    assert len({each.prompt for each in few}) == 5, "one response to each prompt first"
    assert test[: len(few)] == few


def test_more_responses_a_prompt_keep_those_there_were(dataset_of):
    fewer, more = (read_requests(dataset_of("toy", split="test", requests=count)) for count in (2, 6))
    assert {each.id for each in fewer} < {each.id for each in more}


def test_the_published_file_runs_without_a_word_more_than_a_count(on, capsys):
    """500 rows over 462 prompts, the last of which is the 392nd again: 499 requests."""
    rows = [row(number % 462, False, False, response_0=f"harm {number}") for number in range(499)]
    rows.append(rows[391])
    config = on(rows, on_bad_row="drop")
    requests = read_requests(config)
    assert (len(requests), len({request.group for request in requests})) == (499, 462)
    assert requests_report(config)["data"]["bad"] == {"duplicate": 1}
    assert "left out 1" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="is repeated with its responses"):
        read_requests(on(rows, on_bad_row="error"))


def test_categories_are_those_of_the_harmful_response(on):
    named = {"response_0_harm_category": {"theft": False, "fraud": False}}
    named["response_1_harm_category"] = {"theft": True, "fraud": False}
    first, second = read_requests(on([row(1, True, False, **named), row(2, False, True)]))
    assert (first.categories, second.categories) == (("theft",), ())
