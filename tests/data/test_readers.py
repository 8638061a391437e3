"""Every source: made-up rows in the hub's schema, with the traps that each is known for, in both formats."""

import itertools
import json

import pytest

from alignlab.data.readers import SOURCES
from alignlab.data.readers.ultrafeedback import REPEATED, WRONG_TEN
from alignlab.data.records import Turn, pairs_by
from alignlab.data.sources import load, read_ranked_rows
from alignlab.errors import ConfigError


def ranking(config, objective=None):
    """(prompt, chosen, rejected) by an objective, the first unless it is named."""
    name = objective or next(iter(config.objectives))
    return [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs_by(read_ranked_rows(config), name)]


@pytest.fixture
def loaded(dataset_of, file_of):
    return lambda choice, rows, **changes: load(dataset_of(choice, path=file_of(rows), **changes))


@pytest.fixture
def on(dataset_of, file_of):
    return lambda choice, rows, **changes: dataset_of(choice, path=file_of(rows), **changes)


def test_every_kind_is_tested_here_or_with_the_toy():
    tested = {"pku_saferlhf", "c2_eval", "beavertails", "hh_rlhf", "shp", "stack_exchange_paired", "c2_syn", "pairs"}
    assert set(SOURCES) == tested | {
        "toy",
        "summarize_from_feedback",
        "ultrafeedback",
        "helpsteer",
        "ranked",
        "scored",
        "prompts",
    }


PKU = {
    "prompt": "how do i fold a map",
    "response_0": "fold it in half",
    "response_1": "with care",
    "prompt_source": "x",
    "is_response_0_safe": True,
    "is_response_1_safe": True,
    "response_0_harm_category": {"Privacy": False},
    "better_response_id": 0,
    "safer_response_id": 1,
}


@pytest.mark.parametrize("choice", ["pku_saferlhf", "pku_saferlhf_10k", "pku_saferlhf_30k", "c2_eval"])
def test_pku_saferlhf_ranks_the_same_rows_twice(on, choice):
    config = on(choice, [PKU])
    assert ranking(config, "better") == [("how do i fold a map", "fold it in half", "with care")]
    assert ranking(config, "safer") == [("how do i fold a map", "with care", "fold it in half")]


def test_pku_saferlhf_needs_no_marks_of_safety(on):
    lacking = {key: value for key, value in PKU.items() if not key.startswith("is_")}
    assert len(ranking(on("pku_saferlhf", [lacking]), "safer")) == 1


def test_a_contradiction_matters_to_the_safer_objective_alone(on):
    rows = [{**PKU, "is_response_1_safe": False}]
    assert len(ranking(on("pku_saferlhf", rows, use=["better"]))) == 1
    with pytest.raises(ConfigError, match="response_1 is marked unsafe and response_0 safe"):
        ranking(on("pku_saferlhf", rows, use=["safer"]))


def talk(*said):
    speakers = ("Human", "Assistant")
    return "".join(f"\n\n{speakers[index % 2]}: {text}" for index, text in enumerate(said))


def test_hh_takes_the_turns_up_to_the_last_request(on):
    rows = [
        {"chosen": talk("hello", "hi there"), "rejected": talk("hello", "what")},
        {"chosen": talk("one", "two", "three", "a long last answer"), "rejected": talk("one", "two", "three", "four")},
    ]
    config = on("hh_rlhf", rows)
    turns = (Turn("user", "one"), Turn("assistant", "two"), Turn("user", "three"))
    assert ranking(config) == [("hello", "hi there", "what"), (turns, "a long last answer", "four")]


def test_hh_takes_each_sides_own_answer_whatever_its_length(on):
    """Slicing the rejected side at the chosen side's length would lose a part of it, or a part of the prompt."""
    short, long = "no", "a far longer answer, with a second line\nand a third"
    rows = [{"chosen": talk("hello", short), "rejected": talk("hello", long)}]
    assert ranking(on("hh_helpful", rows)) == [("hello", short, long)]


def test_hh_joins_what_one_speaker_says_in_a_row(on):
    text = "\n\nHuman: hello\n\nHuman: are you there\n\nAssistant: "
    assert ranking(on("hh_harmless", [{"chosen": text + "yes", "rejected": text + "no"}])) == [
        ("hello\n\nare you there", "yes", "no")
    ]


@pytest.mark.parametrize(
    ("chosen", "rejected", "said"),
    [
        (talk("a", "b", "c", "d"), talk("a", "x", "c", "e"), "rejected: differs from chosen before the last answer"),
        (talk("a", "b", "c", "d"), talk("a", "e"), "rejected: differs from chosen before the last answer"),
        (talk("a", "b", "c"), talk("a", "b"), "chosen: must end in a turn of the Assistant"),
        ("hello", talk("a", "b"), r"chosen: must begin with '\n\nHuman:'"),
        ("\n\nAssistant: b", talk("a", "b"), r"chosen: must begin with '\n\nHuman:'"),
        (talk("a", " "), talk("a", "b"), "chosen: is empty"),
    ],
)
def test_hh_rows_that_make_no_pair(on, chosen, rejected, said):
    with pytest.raises(ConfigError) as refused:
        ranking(on("hh_rlhf", [{"chosen": chosen, "rejected": rejected}]))
    assert said in str(refused.value)


SHP = {
    "history": "which map is best",
    "human_ref_A": "the old one",
    "human_ref_B": "the new one",
    "labels": 1,
    "score_A": 30,
    "score_B": 10,
    "score_ratio": 3.0,
}


def test_shp_label_1_means_a(on):
    other = {**SHP, "history": "which car", "labels": 0, "score_A": 1, "score_B": 7, "score_ratio": 7.0}
    assert ranking(on("shp", [SHP, other])) == [
        ("which map is best", "the old one", "the new one"),
        ("which car", "the new one", "the old one"),
    ]


def test_shp_leaves_out_weak_preferences_and_counts_them(loaded):
    rows = [{**SHP, "history": f"request {ratio}", "score_ratio": ratio} for ratio in (1.0, 1.9, 2.0, 5.0)]
    found = loaded("shp", rows)
    assert [row.prompt for row in found.rows] == ["request 2.0", "request 5.0"]
    assert found.as_record()["left_out"] == {"score ratio below dataset.min_score_ratio": 2}
    assert len(loaded("shp", rows, min_score_ratio=None).rows) == 4


def test_shp_votes_that_contradict_the_label_are_seen(on):
    with pytest.raises(ConfigError, match=r"labels: is 1, but the votes are 3 to 9"):
        ranking(on("shp", [{**SHP, "score_A": 3, "score_B": 9}]))


def test_stack_exchange_prefers_j(on):
    row = {"qid": 1, "question": "why", "response_j": "because", "response_k": "no idea", "date": "x"}
    assert ranking(on("stack_exchange_paired", [row])) == [("why", "because", "no idea")]


def comparison(post, choice=0, article=None, texts=("a summary", "another")):
    return {
        "info": {"id": "1", "post": post, "title": None, "article": article},
        "summaries": [{"text": text, "policy": "x", "note": None} for text in texts],
        "choice": choice,
        "worker": "w",
    }


def test_summaries_by_choice(on):
    rows = [comparison(" a post "), comparison("another post", choice=1)]
    assert ranking(on("summarize_from_feedback", rows)) == [
        ("a post", "a summary", "another"),
        ("another post", "another", "a summary"),
    ]


def test_news_articles_have_no_post_and_never_become_the_prompt_none(loaded):
    found = loaded("summarize_from_feedback", [comparison("a post"), comparison(None, article="some news")])
    assert [row.prompt for row in found.rows] == ["a post"]
    assert found.as_record()["left_out"] == {"news articles, which have no post": 1}


def test_a_post_that_is_just_missing_is_a_bad_row(on):
    with pytest.raises(ConfigError, match=r"rows\.\w+:2 info\.post: is null"):
        ranking(on("summarize_from_feedback", [comparison("a post"), comparison(None)]))


def completion(response, overall=5.0, **ratings):
    aspects = ("instruction_following", "honesty", "truthfulness", "helpfulness")
    annotations = {name: {"Rating": str(ratings.get(name, 3)), "Rationale": "x"} for name in aspects}
    return {"model": "m", "response": response, "annotations": annotations, "overall_score": overall}


def ultrafeedback(*completions, instruction="say hello"):
    return {"source": "x", "instruction": instruction, "completions": list(completions)}


def test_ultrafeedback_is_one_row_of_all_completions(on):
    row = ultrafeedback(*(completion(f"answer {score}", float(score)) for score in (4, 9, 6, 1)))
    config = on("ultrafeedback", [row])
    (ranked,) = read_ranked_rows(config)
    assert ranked.responses == ("answer 4", "answer 9", "answer 6", "answer 1")
    assert len(ranking(config, "overall")) == 6
    assert list(ranked.scores) == ["overall", "instruction_following", "honesty", "truthfulness", "helpfulness"]


def test_ultrafeedback_ratings_are_compared_as_numbers(on):
    """As text "N/A" is above "5", and "10" below "2"."""
    row = ultrafeedback(completion("a", honesty="N/A"), completion("b", honesty=5), completion("c", honesty=10))
    config = on("ultrafeedback", [row], use=["honesty"])
    assert ranking(config) == [("say hello", "c", "b")]
    assert read_ranked_rows(config)[0].scores["honesty"] == (None, 5.0, 10.0)


def test_ultrafeedback_ties_make_no_pair(on):
    row = ultrafeedback(completion("a", honesty=3), completion("b", honesty=3), completion("c", honesty=4))
    assert ranking(on("ultrafeedback", [row], use=["honesty"])) == [("say hello", "c", "a"), ("say hello", "c", "b")]


def test_ultrafeedback_a_ten_that_was_a_one_says_nothing(loaded):
    bad = {"instruction_following": 1, "honesty": 2, "truthfulness": 1, "helpfulness": 1}
    good = dict.fromkeys(bad, 5)
    row = ultrafeedback(completion("bad", 10.0, **bad), completion("good", 10.0, **good), completion("fair", 6.0))
    found = loaded("ultrafeedback", [row], use=["overall"])
    assert found.rows[0].scores["overall"] == (None, 10.0, 6.0)
    assert found.as_record()["notes"] == {WRONG_TEN: 1}
    assert found.as_record()["bad"] == {}


def test_ultrafeedback_leaves_out_what_was_said_before(loaded):
    row = ultrafeedback(completion("a", 3.0), completion("a", 7.0), completion(" ", 9.0), completion("b", 5.0))
    found = loaded("ultrafeedback", [row], use=["overall"])
    assert found.rows[0].responses == ("a", "b")
    assert found.as_record()["notes"] == {REPEATED: 2}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (ultrafeedback(completion("a", honesty="five"), completion("b")), "completions.0.annotations.honesty.Rating"),
        (ultrafeedback(completion("a"), completion(None)), "completions.1.response: is null"),
        (ultrafeedback(completion("a"), completion("a ")), "completions: hold no two different responses"),
        (ultrafeedback(completion("a"), completion("b"), instruction=""), "instruction: is empty"),
    ],
)
def test_ultrafeedback_rows_that_cannot_be_used(on, row, said):
    with pytest.raises(ConfigError) as refused:
        ranking(on("ultrafeedback", [row]))
    assert said in str(refused.value)


def steered(prompt, response, *ratings):
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    return {"prompt": prompt, "response": response, **dict(zip(names, ratings, strict=True))}


HELPSTEER = [
    steered("p", "a", 4, 4, 4, 0, 0),
    steered("q", "only one", 1, 1, 1, 1, 1),
    steered("p", "b", 1, 1, 1, 4, 4),
    steered("r", "c", 2, 2, 2, 2, 2),
    steered("r", "d", 2, 2, 2, 2, 2),
]


@pytest.mark.parametrize("choice", ["helpsteer", "helpsteer2"])
def test_helpsteer_joins_a_prompts_responses_wherever_they_stand(loaded, choice):
    found = loaded(choice, HELPSTEER)
    assert [(row.prompt, row.responses) for row in found.rows] == [("p", ("a", "b")), ("r", ("c", "d"))]
    assert found.as_record()["left_out"] == {"prompts with one response": 1}


def test_helpsteer_groups_are_not_cut_at_any_batch(loaded):
    """Joining within batches of 1000 rows loses the pairs across their edges."""
    rows = [
        steered(f"prompt {number}", f"response {side}", side, 1, 1, 1, 1) for side in (0, 4) for number in range(1500)
    ]
    assert len(loaded("helpsteer", rows, use=["helpfulness"]).rows) == 1500


def test_helpsteer_overall_does_not_count_length_as_a_merit(on):
    assert ranking(on("helpsteer", HELPSTEER), "overall") == [("p", "a", "b")]
    assert ranking(on("helpsteer", HELPSTEER), "verbosity") == [("p", "b", "a")]


def test_helpsteer_ties_make_no_pair(on):
    assert all(prompt != "r" for prompt, *_ in ranking(on("helpsteer", HELPSTEER), "helpfulness"))


def test_helpsteer2_conversations_become_turns(loaded):
    prompt = "hello\n<extra_id_1>Assistant\nhi\n<extra_id_1>User\nand now"
    rows = [steered(prompt, "a", 4, 4, 4, 4, 4), steered(prompt, "b", 1, 1, 1, 1, 1)]
    turns = (Turn("user", "hello"), Turn("assistant", "hi"), Turn("user", "and now"))
    assert [row.prompt for row in loaded("helpsteer2", rows).rows] == [turns]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (steered("p", "a", 1, 1, 1, 1, 1), ":2 prompt: is repeated with its responses from"),
        (steered("p", "", 1, 1, 1, 1, 1), ":2 response: is empty"),
        (steered("p", "b", 7, 1, 1, 1, 1), ":2 helpfulness: must be between 0 and 4, is 7"),
    ],
)
def test_helpsteer_rows_that_cannot_be_used(on, row, said):
    with pytest.raises(ConfigError) as refused:
        ranking(on("helpsteer", [steered("p", "a", 4, 4, 4, 4, 4), row]))
    assert said in str(refused.value)


def beaver(prompt, response, is_safe):
    return {"prompt": prompt, "response": response, "category": {"violence": not is_safe}, "is_safe": is_safe}


BEAVER = [
    beaver("p", "safe 1", True),
    beaver("p", "unsafe 1", False),
    beaver("q", "safe alone", True),
    beaver("p", "unsafe 2", False),
    beaver("p", "safe 2", True),
    beaver("p", "safe 3", True),
]


def test_beavertails_puts_safe_above_unsafe_to_the_same_prompt(loaded, on):
    assert ranking(on("beavertails", BEAVER)) == [("p", "safe 1", "unsafe 1"), ("p", "safe 2", "unsafe 2")]
    assert len(ranking(on("beavertails", BEAVER, pairs="all"))) == 6
    left_out = loaded("beavertails", BEAVER).as_record()["left_out"]
    assert left_out == {"prompts without both a safe and an unsafe response": 1}


def test_beavertails_annotators_are_one_voice(loaded):
    """Each annotator's label is a row of its own; three of them are no three responses."""
    votes = [beaver("p", "a", safe) for safe in (True, True, False)] + [beaver("p", "b", False)] * 2
    divided = [beaver("p", "c", safe) for safe in (True, False)]
    found = loaded("beavertails", votes + divided)
    assert [(row.responses, row.scores) for row in found.rows] == [(("a", "b"), {"safer": (1.0, 0.0)})]
    notes = found.as_record()["notes"]
    assert notes == {"responses labelled more than once": 3, "responses whose annotators were divided evenly": 1}
    assert found.as_record()["bad"] == {}


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hello", "chosen": "hi", "rejected": "no"},
        {"prompt": [user("hello")], "chosen": [assistant("hi")], "rejected": [assistant("no")]},
        {"prompt": "hello", "chosen": [assistant("hi")], "rejected": [assistant("no")]},
        {"chosen": [user("hello"), assistant("hi")], "rejected": [user("hello"), assistant("no")]},
    ],
    ids=["standard", "conversational", "mixed", "implicit prompt"],
)
def test_pairs_in_trls_forms(on, row):
    assert ranking(on("pairs", [row])) == [("hello", "hi", "no")]


def test_pairs_with_an_implicit_prompt_of_text(on):
    row = {"chosen": "Q: hello A: the red one", "rejected": "Q: hello A: the rest"}
    ((prompt, chosen, rejected),) = ranking(on("pairs", [row]))
    assert (prompt, chosen, rejected) == ("Q: hello A:", " the red one", " the rest"), "no cut inside a sentence"


def test_pairs_of_conversations_of_several_turns(on):
    turns = [user("one"), assistant("two"), user("three")]
    row = {"chosen": [*turns, assistant("a")], "rejected": [*turns, assistant("b")]}
    expected = (Turn("user", "one"), Turn("assistant", "two"), Turn("user", "three"))
    assert ranking(on("pairs", [row])) == [(expected, "a", "b")]


def test_pairs_take_the_name_that_the_user_gives_them(on):
    config = on("pairs", [{"prompt": "p", "chosen": "a", "rejected": "b"}], use=["safer"])
    assert list(config.objectives) == ["safer"]
    assert ranking(config, "safer") == [("p", "a", "b")]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"chosen": "hello", "rejected": "no"}, "rejected: does not begin as chosen does"),
        ({"chosen": "same words", "rejected": "same words"}, "rejected: is the same as chosen"),
        (
            {"chosen": [user("a"), assistant("b")], "rejected": [user("c"), assistant("d")]},
            "shares no turn with chosen",
        ),
        (
            {"prompt": [user("a"), assistant("b")], "chosen": "x", "rejected": "y"},
            "prompt: must end in a turn of the user, ends in one of the assistant",
        ),
        (
            {"prompt": "p", "chosen": [user("x")], "rejected": [assistant("y")]},
            "chosen: must be one turn of the assistant",
        ),
        ({"prompt": [{"role": "robot", "content": "a"}], "chosen": "x", "rejected": "y"}, "prompt.0.role: is 'robot'"),
        ({"prompt": [{"role": "user", "content": None}], "chosen": "x", "rejected": "y"}, "prompt.0.content: is null"),
        ({"prompt": None, "chosen": "x", "rejected": "y"}, "prompt: is null"),
    ],
)
def test_pairs_that_cannot_be_used(on, row, said):
    with pytest.raises(ConfigError) as refused:
        ranking(on("pairs", [row]))
    assert said in str(refused.value)


def test_ranked_lists_are_best_first(on):
    row = {"prompt": "p", "responses": ["a", "b", "c"]}
    assert ranking(on("ranked", [row])) == [("p", "a", "b"), ("p", "a", "c"), ("p", "b", "c")]


def test_ranked_lists_with_scores_by_name(on):
    rows = [
        {"prompt": "p", "responses": ["a", "b", "c"], "scores": {"helpful": [1, 2, 2.5], "safe": [3, None, 1]}},
        {"prompt": "q", "responses": ["a", "b"], "scores": {"helpful": [0, 1], "safe": None}},
    ]
    config = on("ranked", rows, use=["safe", "helpful"])
    assert ranking(config, "safe") == [("p", "a", "c")]
    assert ranking(config, "helpful") == [("p", "b", "a"), ("p", "c", "a"), ("p", "c", "b"), ("q", "b", "a")]


def test_ranked_lists_with_plain_scores(on):
    assert ranking(on("ranked", [{"prompt": "p", "responses": ["a", "b"], "scores": [-1.5, 0.0]}])) == [("p", "b", "a")]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"responses": ["a"]}, "responses: must hold 2 at least, holds 1"),
        ({"responses": ["a", "b", " a"]}, "responses.2: is the same as responses.0"),
        ({"responses": ["a", ""]}, "responses.1: is empty"),
        ({"responses": ["a", "b"], "scores": [1.0]}, "scores: must hold one score a response, holds 1 for 2"),
        ({"responses": ["a", "b"], "scores": [1.0, float("nan")]}, "scores.1: must be a finite number, is nan"),
        ({"responses": "ab"}, "responses: must be a list, is text"),
    ],
)
def test_ranked_rows_that_cannot_be_used(on, row, said):
    with pytest.raises(ConfigError) as refused:
        ranking(on("ranked", [{"prompt": "p", **row}]))
    assert said in str(refused.value)


def test_an_objective_that_no_row_ranks_is_refused(on):
    with pytest.raises(ConfigError, match=r"dataset\.objectives\.nice\.label=nice: scores no response in 1 rows"):
        ranking(on("ranked", [{"prompt": "p", "responses": ["a", "b"]}], use=["preferred", "nice"]))


SIX = ["safe", "early", "c2", "c3", "late", "harmful"]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ("all", {(a, b) for index, a in enumerate(SIX) for b in SIX[index + 1 :]}),
        ("adjacent", set(itertools.pairwise(SIX))),
        ("best_worst", {("safe", "harmful")}),
        ("principle_1", {(better, "harmful") for better in SIX[1:5]}),
        ("principle_2", {(a, b) for index, a in enumerate(SIX[1:5], 1) for b in SIX[index + 1 : 5]}),
    ],
)
def test_c2_syn_pairs(on, pairs, expected):
    rows = [{"id": "1", "request_id": "1", "prompt": prompt, "responses": SIX} for prompt in ("p", "q")]
    found = ranking(on("c2_syn", rows, pairs=pairs))
    for prompt in ("p", "q"):
        assert {pair[1:] for pair in found if pair[0] == prompt} == expected
    assert len(found) == 2 * len(expected), "each pair once"


def test_c2_syn_pairs_of_a_request_share_a_group_and_no_id(on):
    rows = read_ranked_rows(on("c2_syn", [{"prompt": "p", "responses": SIX}], pairs="adjacent"))
    pairs = pairs_by(rows, "safer")
    assert len({pair.group for pair in pairs}) == 1
    assert len({pair.id for pair in pairs}) == 5


def test_c2_syn_reads_a_runs_folder_and_nothing_else_in_it(dataset_of, tmp_path):
    (tmp_path / "ranked.jsonl").write_text(json.dumps({"prompt": "p", "responses": SIX}))
    (tmp_path / "generations.jsonl").write_text('{"id": "1"}')
    assert len(ranking(dataset_of("c2_syn", path=tmp_path))) == 15
    (tmp_path / "ranked.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"holds no ranked.jsonl; give a finished synthesis run's folder"):
        ranking(dataset_of("c2_syn", path=tmp_path))
