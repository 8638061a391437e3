"""Training computes what TRL's padded batch computes: losses, log-probabilities and gradients, families and data."""

import pytest

from alignlab.engine.scoring.forward import BatchLayout
from alignlab.engine.scoring.probe import detect_batch_layout
from alignlab.engine.scoring.rows import fit
from alignlab.models.scratch import word_tokenizer
from support.against_trl import FAMILIES, assert_alike, model_of, table_of, trained
from support.pairs_of_tokens import DATA, plain_pairs, ranked_pairs


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_as_trl_does(family, tmp_path):
    table = table_of(ranked_pairs())
    ours = trained("alignlab", model_of(family), table, tmp_path / "a")
    assert_alike(ours, trained("trl", model_of(family), table, tmp_path / "t"))
    assert detect_batch_layout(model_of(family), longest=21) is BatchLayout.PREFIX_TREE
    assert len(ours.gradients[0]) > 10


@pytest.mark.parametrize(("data", "side"), [*((data, "right") for data in DATA), ("pairs", "left")])
def test_all_data_trains_as_trl_does(data, side, tmp_path):
    table, tokenizer = table_of(DATA[data]()), word_tokenizer([])
    tokenizer.padding_side = side
    ours, theirs = (
        trained(kind, model_of("llama"), table, tmp_path / kind, tokenizer=tokenizer) for kind in ("alignlab", "trl")
    )
    assert_alike(ours, theirs)


def test_cut_rows_train_as_trl_cuts_them(tmp_path):
    limit = 15
    pairs = [pair for pair in plain_pairs() if len(pair[0].prompt_ids) < limit]
    cut = [(fit(chosen, limit), fit(rejected, limit)) for chosen, rejected in pairs]
    assert cut != pairs
    ours = trained("alignlab", model_of("llama"), table_of(cut), tmp_path / "a")
    uncut = table_of(pairs)
    assert_alike(ours, trained("trl", model_of("llama"), uncut, tmp_path / "t", settings={"max_length": limit}))
    with pytest.raises(AssertionError):  # control: the limit matters
        assert_alike(ours, trained("trl", model_of("llama"), uncut, tmp_path / "u"))


def test_a_padded_model_trains_as_trl_does(tmp_path, monkeypatch):
    """The way of models that take no forest."""
    monkeypatch.setattr("alignlab.training.preference.detect_batch_layout", lambda *_, **__: BatchLayout.PADDED)
    table = table_of(ranked_pairs())
    ours = trained("alignlab", model_of("llama"), table, tmp_path / "a")
    assert_alike(ours, trained("trl", model_of("llama"), table, tmp_path / "t"))
