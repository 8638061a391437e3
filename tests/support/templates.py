"""Chat templates in the forms of the usual families, each with a small tokenizer that has the family's special tokens.

The templates are written for the tests: as short as the form allows, and with the habits that matter to a prompt whose
assistant turn stays open (trimming, end tokens, headers that differ, thoughts, texts without special tokens).
"""

import json
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

_WORDS = (
    "the a to of and where is my red box on table under blue lamp near door i am sorry but cannot help with that please"
    " tell me how can make cake sure here are steps first take some flour then add two eggs milk stir it well wait stop"
    " should not user assistant system model chat between curious human answer question helpful polite good day what"
)
_TEXTS = [_WORDS, " ".join(_WORDS.split()[::-1]), _WORDS.title(), ", . : ; ! ? ' \n \n\n"]


@dataclass(frozen=True)
class Family:
    """How one family writes a conversation."""

    name: str
    template: str
    """A jinja chat template; for `is_string` a text with {raw_prompt}."""
    special: tuple[str, ...]
    """Special tokens, unknown and padding apart."""
    header: str
    """What opens the assistant's turn, up to the answer's first character."""
    eos: str
    bos: str | None = None
    adds_bos: bool = False
    """The tokenizer itself puts BOS before a text."""
    sentencepiece: str | None = None
    """Spaces are part of the word after them. A space is put in front of every piece of text between special tokens
    (`each`, the older Llamas), of the text (`first`) or not at all (`none`). None: bytes, as in GPT-2."""
    is_string: bool = False
    plain: tuple[str, ...] = ()
    """Added tokens that are no special ones."""
    trims: bool = False
    """The template strips what is said."""


_BRACKETS = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content.strip() + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
_HEADERS = (
    "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
    "{{ '<|im_start|>system\nhelpful assistant<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_THINKING = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% set said = m.content %}{% set thought = '' %}"
    "{% if '</think>' in said %}{% set thought = said.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>assistant\n' }}{% if loop.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}"
    "{{ said + '<|im_end|>\n' }}{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_TURNS = (
    "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_PHI = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
_ZEPHYR = (
    "{% for m in messages %}\n{{ '<|' + m.role + '|>\n' + m.content + eos_token }}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
_OLMO = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% if not (m.role == 'assistant' and loop.last) %}{{ '\n' }}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)
_GLM = (
    "[gMASK]<sop>{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_VICUNA = "A chat between a curious user and a helpful assistant. USER: {raw_prompt} ASSISTANT: "

FAMILIES = {
    family.name: family
    for family in (
        Family("llama2", _BRACKETS, (), "[/INST] ", "</s>", "<s>", True, sentencepiece="each", trims=True),
        Family(
            "llama3",
            _HEADERS,
            ("<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>"),
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            "<|eot_id|>",
            "<|begin_of_text|>",
            True,
            trims=True,
        ),
        Family("qwen2", _CHATML, ("<|im_start|>", "<|endoftext|>"), "<|im_start|>assistant\n", "<|im_end|>"),
        Family(
            "qwen3",
            _THINKING,
            ("<|im_start|>", "<|endoftext|>"),
            "<|im_start|>assistant\n<think>\n\n</think>\n\n",
            "<|im_end|>",
            plain=("<think>", "</think>"),
        ),
        Family(
            "gemma",
            _TURNS,
            ("<start_of_turn>", "<end_of_turn>"),
            "<start_of_turn>model\n",
            "<eos>",
            "<bos>",
            True,
            sentencepiece="none",
            trims=True,
        ),
        Family("phi3", _PHI, ("<|user|>", "<|assistant|>", "<|end|>"), "<|assistant|>\n", "<|endoftext|>"),
        Family("mistral", _MISTRAL, ("[INST]", "[/INST]"), "[/INST] ", "</s>", "<s>", True, sentencepiece="first"),
        Family("zephyr", _ZEPHYR, (), "<|assistant|>\n", "</s>", "<s>", True, sentencepiece="each"),
        Family(
            "glm4",
            _GLM,
            ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>"),
            "<|assistant|>\n",
            "<|endoftext|>",
        ),
        Family("olmo2", _OLMO, (), "<|assistant|>\n", "<|endoftext|>", "<|endoftext|>"),
        Family("vicuna", _VICUNA, (), "ASSISTANT: ", "</s>", "<s>", True, sentencepiece="each", is_string=True),
    )
}


def tokenizer_of(family: Family) -> PreTrainedTokenizerFast:
    """A tokenizer of some hundred tokens with the family's special ones; it can spell any text."""
    tokenizer = _sentencepiece(family.sentencepiece) if family.sentencepiece else _bytes()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>" if family.sentencepiece else None,
        bos_token=family.bos,
        eos_token=family.eos,
        chat_template=None if family.is_string else family.template,
    )
    made.add_special_tokens({"additional_special_tokens": list(family.special)})
    made.add_tokens([AddedToken(text, special=False, normalized=False) for text in family.plain])
    if family.adds_bos:
        bos = (family.bos, made.bos_token_id)
        made._tokenizer.post_processor = processors.TemplateProcessing(single=f"{family.bos} $A", special_tokens=[bos])
    return made


def _bytes() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_TEXTS, trainer)
    return tokenizer


def _sentencepiece(space_in_front: str) -> Tokenizer:
    """Spaces as ▁, words with the space before them, bytes for what has no token."""
    learnt = Tokenizer(models.BPE())
    learnt.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    learnt.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # words keep apart while merges are learnt
    learnt.train_from_iterator(_TEXTS, trainers.BpeTrainer(vocab_size=500, show_progress=False))
    model = json.loads(learnt.to_str())["model"]
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if space_in_front == "each":
        tokenizer.normalizer = learnt.normalizer
    elif space_in_front == "first":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    stripped = [] if space_in_front == "none" else [decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence([*parts, *stripped])
    return tokenizer
