from alignlab.data.records import Pair
from alignlab.models.prompts import Encoded, PromptEncoder
from alignlab.models.scratch import bpe_tokenizer
from alignlab.preference.rows import encode_pairs, one_boundary


def test_a_merged_boundary_moves_for_both_responses():
    """`:` and `)` are one token, so the chosen text has no token that ends where the prompt does."""
    tokenizer = bpe_tokenizer(["say: :) :) :) :) no no no"] * 9, 300)
    encoder = PromptEncoder(tokenizer, "{raw_prompt}:")
    assert len(tokenizer(":)", add_special_tokens=False)["input_ids"]) == 1
    pair = Pair("a", "say", chosen=") no", rejected="no", group="g", objective="better")
    (encoded,) = encode_pairs([pair], encoder, max_length=99).pairs
    assert encoded.chosen.prompt_ids == encoded.rejected.prompt_ids == encoder.prompt_ids("say")[:-1]
    for row, text in ((encoded.chosen, "say:) no"), (encoded.rejected, "say:no")):
        assert row.prompt_ids + row.response_ids == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]


def test_one_boundary_leaves_equal_ones_alone():
    left, right = Encoded([1, 2], [3, 4]), Encoded([1, 2], [5])
    assert one_boundary(left, right) == (left, right)
