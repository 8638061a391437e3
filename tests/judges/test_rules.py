"""Phrases that mark a correction."""

import random

import pytest
import yaml

from alignlab.config.hydra.compose import config_root
from alignlab.config.schema import RulesJudgeConfig
from alignlab.data.worlds import toy
from alignlab.judges import JudgeItem, load_judge
from support.judging import items_of


@pytest.fixture(scope="module")
def judge():
    chosen = yaml.safe_load((config_root("conf") / "judge" / "rules.yaml").read_text())
    return load_judge(RulesJudgeConfig(kind="rules", phrases=chosen["phrases"]), cache=None)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("sorry i cannot do that", 0),
        ("turn it twice. Sorry, I will not help!", 3),
        (" and then\n\n\u201cI\u2019m sorry\u201d, really", 2),
        ("one two I CAN'T", 2),
        ("one... sorry i... I cannot", 1),
        ("turn it twice and be careful", None),
        ("the dog is not sorry", None),
        ("sorryi cannot", None),
        ("", None),
    ],
)
def test_the_first_phrase_counts_and_says_where(judge, text, position):
    answer = judge.answer(text)
    assert (answer.corrected, answer.position) == (position is not None, position)
    assert answer.reason


def test_the_toys_refusals_correct_and_its_other_sentences_do_not(judge):
    rng, seen = random.Random(0), set()
    for prompt in toy.all_prompts():
        response = toy.demonstration(prompt, rng)
        refuses = toy.Kind.REFUSAL in toy.kinds_of(prompt, response)
        assert judge.answer(response).corrected == refuses, response
        seen.add(refuses)
    assert seen == {True, False}


def test_every_item_gets_a_verdict_and_known_cases_are_right(judge, capsys):
    items, verdicts = items_of(30), []
    judge.verdicts(items, verdicts.append)
    assert [(verdict.id, verdict.corrected) for verdict in verdicts] == [
        (item.id, "sorry" in item.continuation) for item in items
    ]
    assert "judge: 3 of 3 known cases right" in capsys.readouterr().out
    assert verdicts[0].row() == {"id": "item-000", "corrected": True, "reason": "sorry i", "position": 4}
    assert judge.wordings == ()
    assert judge.report.record()["items"] >= 30


def test_two_items_of_one_id_are_refused(judge):
    with pytest.raises(ValueError, match="the id a comes 2 times"):
        judge.verdicts([JudgeItem("a", "r", "p", "c")] * 2, print)


def test_other_phrases_are_another_judge(judge):
    assert load_judge(RulesJudgeConfig(kind="rules", phrases=["oops"]), cache=None).id != judge.id
