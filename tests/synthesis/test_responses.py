"""What a broken policy leaves is refused; where a correction starts is known to the character and to the token."""

from collections import Counter

import pytest

from alignlab.config.schema.generation import LocalGeneratorConfig
from alignlab.course_correction.phrases import CORRECTION_PHRASES
from alignlab.data.rankings import BENIGN, HARMFUL
from alignlab.data.records import RankedRow, pairs_by
from alignlab.engine.sampling.base import Continuation
from alignlab.engine.scoring.rows import encode_pairs
from alignlab.errors import ConfigError
from alignlab.synthesis.drafts import CORRECTED, HELPFUL, Recipe, draft_sets
from alignlab.synthesis.responses import Writer, refuse_silence
from support.made_up import harm_request

RECIPE = Recipe(at_clauses=True, safe="refusal", is_toy=False, max_prefix_tokens=None)


def drafts_of(encoder, kind=HARMFUL):
    (drafts,) = draft_sets([harm_request()], encoder, kind=kind, recipe=RECIPE, left_out=Counter())
    return drafts


@pytest.mark.parametrize(
    ("texts", "refused"),
    [
        ([("", "length")] * 20, True),  # NaN: one special token, again and again
        ([("", "stop")] * 20, True),  # NaN: the end token at once
        ([("", "length")] * 2 + [(" and more", "length")] * 18, True),
        ([("", "stop")] * 17 + [(" and more", "stop")] * 3, False),  # short, but a policy that writes
        ([(" and more", "length")] * 20, False),
        ([], False),
    ],
)
def test_a_policy_that_writes_nothing_is_refused(texts, refused):
    if not refused:
        refuse_silence(texts)
        return
    with pytest.raises(ConfigError, match="look for NaN in its weights"):
        refuse_silence(texts)


def test_a_correction_starts_at_its_phrase(pieces):
    for draft in drafts_of(pieces):
        if draft.role == CORRECTED:
            assert draft.start[draft.correction_start :] in CORRECTION_PHRASES["training"]
    assert next(iter(drafts_of(pieces))).correction_start == 0
    assert drafts_of(pieces)[-1].correction_start is None
    own, *others = drafts_of(pieces, BENIGN)
    assert (own.correction_start, {draft.correction_start for draft in others}) == (0, {None}), "nothing to correct"


@pytest.mark.parametrize("kind", [HARMFUL, BENIGN])
def test_own_answers_are_drawn_at_temperature_1_and_all_else_as_the_generator_says(pieces, tmp_path, kind):
    class Asked:
        id, revision, encoder = "a policy", None, pieces

        def __init__(self):
            self.settings = {}

        def generate(self, requests, settings, on_done, *, seed, label):
            for request in requests:
                self.settings[request.id] = (settings.temperature, settings.top_p)
                on_done(request.id, 0, Continuation([], f" {request.id} and more", "stop"))

    policy, drafts = Asked(), drafts_of(pieces, kind)
    greedy = LocalGeneratorConfig("transformers", 1, 200, 0.0, 0.9, 8, 4)
    Writer(policy, greedy, seed=0).write(tmp_path / "responses.jsonl", drafts)
    assert set(policy.settings) == {draft.id for draft in drafts if draft.ids}
    for draft in drafts:
        if draft.ids:
            assert policy.settings[draft.id] == ((1.0, 1.0) if draft.role == HELPFUL else (0.0, 0.9))


def test_the_tokens_of_the_likelihood_term_are_those_of_the_correction(pieces):
    drafts = drafts_of(pieces)
    texts = tuple(draft.start for draft in drafts)
    starts = tuple(draft.correction_start for draft in drafts)
    scores = {"safer": tuple(float(-rank) for rank in range(6))}
    row = RankedRow(drafts[0].request.prompt, texts, scores, correction_starts=starts)
    pairs = encode_pairs(pairs_by([row], "safer"), pieces, max_length=None).pairs
    decode = pieces.tokenizer.decode
    for pair in pairs:
        draft = drafts[texts.index(pair.chosen.response)]
        counted = decode(pair.chosen.response_ids[pair.sft_from : -1]).strip()
        before = decode(pair.chosen.response_ids[: pair.sft_from]).strip()
        assert counted == (draft.correction_phrase.text if draft.correction_phrase else draft.start)
        assert before == draft.begun
    whole = RankedRow(row.prompt, texts, scores)
    without = encode_pairs(pairs_by([whole], "safer"), pieces, max_length=None).pairs
    assert {pair.sft_from for pair in without} == {0}, "control: data that does not say counts the whole response"
    cut = encode_pairs(
        pairs_by([row], "safer"), pieces, max_length=len(pairs[0].chosen.prompt_ids) + 3, on_long="cut"
    ).pairs
    assert {pair.sft_from for pair in cut} == {0, -1}, "a correction that was cut off counts nothing"
