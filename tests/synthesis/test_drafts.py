"""What the responses of a set begin with, before anybody writes on."""

from collections import Counter

import pytest

from alignlab.course_correction.phrases import AFFIRMATIVE_PREFIXES, CORRECTION_PHRASES, REFUSALS
from alignlab.data.rankings import BENIGN, HARMFUL
from alignlab.models.prefill import open_turn
from alignlab.synthesis.drafts import CORRECTED, HELPFUL, REFUSED, SAFE, WHOLE, Recipe, draft_sets
from support.made_up import ANSWER, harm_request


def recipe(**changes):
    return Recipe(**{"at_clauses": True, "safe": "refusal", "is_toy": False, "max_prefix_tokens": None, **changes})


def drafted(encoder, requests, kind=HARMFUL, **changes):
    left_out = Counter()
    found = draft_sets(requests, encoder, kind=kind, recipe=recipe(**changes), left_out=left_out)
    return list(found), left_out


@pytest.fixture(scope="module")
def harmful(pieces):
    ((drafts),), left_out = drafted(pieces, [harm_request()])
    assert not left_out
    return drafts


def test_a_harmful_set_goes_from_safe_over_corrected_to_harmful(harmful):
    assert [draft.role for draft in harmful] == [SAFE, *[CORRECTED] * 4, WHOLE]
    assert [draft.rank for draft in harmful] == list(range(6))
    assert sorted(draft.id for draft in harmful) == [draft.id for draft in harmful]
    lengths = [len(draft.cut.text) for draft in harmful[1:5]]
    assert lengths == sorted(lengths), "an earlier correction is the better one"


def test_all_that_comply_at_first_share_one_affirmative_prefix(harmful):
    openers = {draft.affirmative_prefix.text for draft in harmful[1:]}
    (opener,) = openers
    assert all(draft.start.startswith(f"{opener} First, put") for draft in harmful[1:])
    assert harmful[0].affirmative_prefix is None
    assert harmful[5].start == f"{opener} {ANSWER}"


def test_phrases_are_those_of_training(pieces):
    requests = [harm_request(prompt=f"How do I make {number} cups?") for number in range(40)]
    sets, _ = drafted(pieces, requests)
    used = {
        phrase.text
        for drafts in sets
        for draft in drafts
        for phrase in (draft.affirmative_prefix, draft.correction_phrase)
        if phrase
    }
    assert used <= {*AFFIRMATIVE_PREFIXES["training"], *CORRECTION_PHRASES["training"]}
    assert not used & {*AFFIRMATIVE_PREFIXES["evaluation"], *CORRECTION_PHRASES["evaluation"]}
    assert used >= {*AFFIRMATIVE_PREFIXES["training"], *CORRECTION_PHRASES["training"]}, "40 requests use every phrase"
    assert {drafts[0].start for drafts in sets} <= set(REFUSALS)


def test_the_turn_stays_open_after_the_correction_phrase(pieces, harmful):
    tokenizer = pieces.tokenizer
    for draft in harmful[:5]:
        assert draft.ids[0] == tokenizer.bos_token_id
        assert tokenizer.eos_token_id not in draft.ids
        assert tokenizer.decode(draft.ids, skip_special_tokens=True).endswith(draft.start)
    assert harmful[5].ids == (), "the harmful response is written already"


def test_a_harmless_set_goes_from_helpful_to_refused(pieces):
    ((drafts),), _ = drafted(pieces, [harm_request()], BENIGN)
    assert [draft.role for draft in drafts] == [HELPFUL, *[CORRECTED] * 4, REFUSED]
    lengths = [len(draft.cut.text) for draft in drafts[1:5]]
    assert lengths == sorted(lengths, reverse=True)
    assert (drafts[0].start, drafts[0].affirmative_prefix, drafts[0].correction_phrase) == ("", None, None)
    assert drafts[0].ids == tuple(open_turn(pieces, harm_request().prompt)), "the policy answers in its own words"
    assert [draft.is_sampled for draft in drafts] == [True, *[False] * 5]


def test_the_safe_response_is_what_was_asked_for(pieces):
    request = harm_request(safe=" Please ask a grown-up. ")
    ((own),), _ = drafted(pieces, [request], safe="policy")
    assert (own[0].start, bool(own[0].ids)) == ("", True)
    ((given),), _ = drafted(pieces, [request], safe="data")
    assert (given[0].start, given[0].ids) == ("Please ask a grown-up.", ())


def test_what_cannot_be_made_is_counted(pieces):
    requests = [harm_request(), harm_request("no"), harm_request("</s> <eos> " + ANSWER)]
    sets, left_out = drafted(pieces, requests, safe="data")
    assert (len(sets), left_out) == (0, {"no safe response in the data": 3})
    sets, left_out = drafted(pieces, requests)
    assert len(sets) == 3 - left_out.total()
    assert left_out["too short for four cuts"] == 1
    _, left_out = drafted(pieces, [harm_request()], max_prefix_tokens=20)
    assert left_out == {"no room in the context": 1}
