"""Chat templates of TRL's folder and of every preset: rendered as transformers does, or refused by name."""

import re
from contextlib import suppress
from pathlib import Path

import jinja2
import pytest
import trl
import yaml
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alignlab.data.records import Turn
from alignlab.models.prompts import PromptEncoder
from alignlab.models.rendering import TemplateError
from support.templates import FAMILIES, tokenizer_of

FOLDER = Path(trl.__file__).parent / "chat_templates"
TEMPLATES = sorted(FOLDER.glob("*.jinja"))
SAID, THOUGHT = "Sure, take 2 eggs.\n\nThen stir.", "<think>\nHm, eggs.\n</think>\n\n"
FIRST, LATER = "How do I bake?", "And with 3 eggs?"
CONVERSATIONS = {
    "request": (Turn("user", FIRST),),
    "system": (Turn("system", "Be kind to bakers."), Turn("user", FIRST)),
    "talk": (Turn("user", FIRST), Turn("assistant", "With flour."), Turn("user", LATER)),
    "thoughtful talk": (Turn("user", FIRST), Turn("assistant", f"{THOUGHT}With flour."), Turn("user", LATER)),
    "system and talk": (
        Turn("system", "Be kind to bakers."),
        Turn("user", FIRST),
        Turn("assistant", f"{THOUGHT}With flour."),
        Turn("user", LATER),
    ),
}
REFUSED = {
    **dict.fromkeys(("deepseek_r1_distill", "deepseekv3", "deepseekv3_training"), (5, "holds a thought")),
    **dict.fromkeys(("gemma", "gemma_training"), (4, "put the system turn's words into the first user turn")),
}
"""Template -> refused cases, of len(CASES), and the reason."""
PRESETS = {
    "gemma2_2b_it": "gemma",
    "gemma3_1b_it": "gemma3",
    "llama3_8b_instruct": "llama3",
    "llama3.2_1b_instruct": "llama3_2",
    "llama3.2_3b_instruct": "llama3_2",
    "phi3_mini_4k_instruct": "phi3",
    "phi3_mini_128k_instruct": "phi3",
    "qwen2.5_0.5b_instruct": "qwen2_5",
    "qwen2.5_1.5b_instruct": "qwen2_5",
    "qwen2.5_7b_instruct": "qwen2_5",
    "qwen3_0.6b": "qwen3",
    "qwen3_4b": "qwen3",
    "qwen3_8b": "qwen3",
}
"""Preset -> TRL's file of the same family."""
NOT_IN_TRL = {
    "glm4_9b_chat": "glm4",
    "llama2_7b_chat": "llama2",
    "mistral_7b_instruct_v0.3": "mistral",
    "olmo2_1b_instruct": "olmo2",
    "qwen2_0.5b_instruct": "qwen2",
    "qwen2_1.5b_instruct": "qwen2",
    "qwen2_7b_instruct": "qwen2",
    "qwen2_72b_instruct": "qwen2",
    "smollm2_135m_instruct": "qwen2",  # ChatML with a system turn of its own, as Qwen2's
    "smollm2_1.7b_instruct": "qwen2",
    "zephyr_7b_beta": "zephyr",
}
"""Preset -> the form in support.templates, which is written for the tests: TRL ships none of the family."""
OWN_REFUSED = {"llama2": 4, "mistral": 4}
"""Form -> refused cases: it knows no system turn."""
CASES = [(name, answer) for name in CONVERSATIONS for answer in (SAID, THOUGHT + SAID)]


def tokenizer_for(template):
    """Bytes, with all that looks like a control token in a template as one."""
    tokenizer = Tokenizer(
        models.BPE(vocab={c: n for n, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
    names = set(re.findall(r"<\|?[\w/\uff5c\u2581 -]{2,30}\|?>|\[/?[A-Z_]+\]|<\|[\w]+>|<[\w]+\|>", template)) - {
        "<bos>",
        "<eos>",
    }
    thoughts = {name for name in names if "think" in name.lower()}
    made.add_special_tokens({"additional_special_tokens": sorted(names - thoughts)})
    made.add_tokens([AddedToken(name, special=False, normalized=False) for name in sorted(thoughts)])
    made.chat_template, made.name_or_path = template, "some-model"
    return made


def own_rendering(tokenizer, turns):
    """Transformers' own text of the finished conversation, with content as parts where text would vanish."""
    for content in (str, lambda text: [{"type": "text", "text": text}]):
        messages = [{"role": turn.role, "content": content(turn.content)} for turn in turns]
        with suppress(jinja2.TemplateError):
            text = tokenizer.apply_chat_template(messages, tokenize=False)
            if all(turn.content in text for turn in turns if turn.role == "user"):
                return text
    raise AssertionError("the template drops a request")


def outcome(encoder, turns, answer):
    """equal, or the refusal; fails where tokens differ."""
    tokenizer = encoder.tokenizer
    try:
        row = encoder.encode(turns, answer)
    except TemplateError as error:
        return str(error)
    whole = tokenizer(own_rendering(tokenizer, (*turns, Turn("assistant", answer))), add_special_tokens=False)[
        "input_ids"
    ]
    ids = row.prompt_ids + row.response_ids
    if ids[0] == tokenizer.bos_token_id != whole[0]:  # the tokenizer puts one before texts, the template does not
        assert tokenizer("a")["input_ids"][0] == ids.pop(0)
    assert ids[:-1] == whole[: len(ids) - 1]
    rest = whole[len(ids) - 1 :]
    ends = [token for token in rest if token in tokenizer.added_tokens_decoder]
    assert ids[-1] == (rest[0] if ends else encoder.end_id)
    said = tokenizer.decode(row.response_ids)
    assert LATER not in said
    assert FIRST not in said
    assert said.count("<think>") <= 1
    assert not re.search("[\ufdd0-\ufdef]", tokenizer.decode(ids))
    return "equal"


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.stem)
def test_prompt_and_response_are_the_templates_own_rendering(file):
    encoder = PromptEncoder(tokenizer_for(file.read_text()), None)
    found = {case: outcome(encoder, CONVERSATIONS[case[0]], case[1]) for case in CASES}
    refused = {case: said for case, said in found.items() if said != "equal"}
    assert len(refused) == REFUSED.get(file.stem, (0, ""))[0], refused
    assert all(REFUSED[file.stem][1] in said for said in refused.values())
    assert all("some-model" in said and "\n" not in said for said in refused.values())


@pytest.mark.parametrize("name", sorted(set(NOT_IN_TRL.values())))
def test_forms_that_trl_does_not_ship(name):
    tokenizer = tokenizer_of(FAMILIES[name])
    tokenizer.name_or_path = "some-model"
    encoder = PromptEncoder(tokenizer, None)
    found = [outcome(encoder, CONVERSATIONS[case], answer) for case, answer in CASES]
    refused = [said for said in found if said != "equal"]
    assert len(refused) == OWN_REFUSED.get(name, 0), refused
    assert all("put the system turn's words into the first user turn" in said for said in refused)


def test_every_preset_with_a_chat_template_is_in_a_walk():
    files = (Path(__file__).parents[2] / "conf" / "model").glob("*.yaml")
    settings = {file.stem: yaml.safe_load(file.read_text()) for file in files}
    templated = {name for name, preset in settings.items() if not preset["prompt_template"] and preset.get("path")}
    assert templated == {*PRESETS, *NOT_IN_TRL}
    assert set(PRESETS.values()) <= {file.stem for file in TEMPLATES}
    texts = {"alpaca_7b", "llama2_7b", "scratch", "tiny", "vicuna_7b_v1.5"}
    assert {name for name, preset in settings.items() if preset["prompt_template"]} == texts


def test_the_walk_sees_every_template_and_most_are_split():
    """Templates of later TRLs come with the fewest expectations: they are split, or they are listed here."""
    assert len(TEMPLATES) >= 40
    assert set(REFUSED) <= {file.stem for file in TEMPLATES}
    assert sum(count for count, _ in REFUSED.values()) < len(TEMPLATES) * len(CASES) / 10


def test_the_comparison_sees_a_marker():
    """The control: a text that is changed before it is rendered does not pass."""
    encoder = PromptEncoder(tokenizer_for((FOLDER / "qwen3.jinja").read_text()), None)
    row = encoder.encode(FIRST, f"\ufdd0{SAID}")
    assert row.response_ids == encoder.encode(FIRST, SAID).response_ids, "no text may hold such a code point"
    with pytest.raises(AssertionError):
        outcome(encoder, CONVERSATIONS["request"], f"\ufdd0{SAID}")
