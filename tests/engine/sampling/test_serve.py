"""A real server that is not ours: `transformers serve`, started and stopped here, as generator and as judge."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from alignlab.cli import main
from alignlab.config.schema import LocalGeneratorConfig, OpenAIJudgeConfig, ServerGeneratorConfig
from alignlab.engine.sampling.base import PrefixRequest
from alignlab.engine.sampling.generate import generate
from alignlab.errors import ConfigError
from alignlab.judges.base import JudgeItem
from alignlab.judges.openai import OpenAIJudge
from alignlab.models.prefill import cut_answer, open_turn
from alignlab.models.prompts import PromptEncoder
from support.templates import FAMILIES, tokenizer_of

ANSWER = '{"reason": "it goes on", "quote": "", "corrected": "no"}'
"""What the judging model says to everything."""
HOW = {"samples": 2, "temperature": 0.0, "top_p": 1.0, "max_new_tokens": 8}


def small_llama(tokenizer, **sizes):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2} | sizes
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        intermediate_size=48,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        **shape,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def judging_llama(tokenizer):
    """A model whose next token follows from the last one alone: after any token the answer, after that the end."""
    size = len(tokenizer) + len(tokenizer) % 2
    model = small_llama(tokenizer, hidden_size=size, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1)
    for weight in (model.model.layers[0].self_attn.o_proj.weight, model.model.layers[0].mlp.down_proj.weight):
        weight.zero_()
    model.model.embed_tokens.weight.copy_(torch.eye(len(tokenizer), size))
    answer = tokenizer.convert_tokens_to_ids(ANSWER)
    model.lm_head.weight.zero_()
    model.lm_head.weight[answer] = 1.0
    model.lm_head.weight[tokenizer.eos_token_id, answer] = 2.0
    return model


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """(folder, model, encoder) of a random model: every token of a prompt sways what it says."""
    folder = tmp_path_factory.mktemp("subject")
    tokenizer = tokenizer_of(FAMILIES["qwen2"])
    model = small_llama(tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, model, PromptEncoder(tokenizer, None)


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    tokenizer = tokenizer_of(FAMILIES["qwen2"])
    tokenizer.add_tokens([ANSWER])
    judging_llama(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The address of a running `transformers serve`; it loads the model that a call names."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1"]
    with log.open("w") as out:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--device", "cpu"],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait(server, address, log):
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server did not start")


def server_config(url, folder, **changes):
    settings = HOW | {"prompt_format": "text", "samples_per_call": 1, "send_seed": True, "extra_body": {}} | changes
    patience = {"workers": 1, "timeout_s": 60.0, "deadline_s": 120.0, "backoff_s": 0.1}
    return ServerGeneratorConfig(
        prompts=1, kind="server", base_url=url, model=str(folder), api_key_env=None, **settings, **patience
    )


def nested(encoder):
    cut = cut_answer(
        encoder, "Where is my red box?", opener="Sure, here are the steps:", answer="take some flour then add two eggs"
    )
    return [PrefixRequest(f"r/{k}", cut.at(k), HOW["samples"]) for k in range(len(cut.answer_ids))]


def test_the_server_continues_the_very_prefix(url, subject):
    """Greedy, so that both can be compared: the server reads the tokens that this process reads."""
    folder, model, encoder = subject
    requests = nested(encoder)
    told = []
    served = generate(
        None,
        requests,
        config=server_config(url, folder),
        seed=0,
        encoder=encoder,
        on_done=lambda request, sample, continuation: told.append((request, sample)),
    )
    here = LocalGeneratorConfig(kind="transformers", prompts=1, batch_size=8, **HOW)
    local = generate(model, requests, config=here, seed=0, encoder=encoder)
    assert sorted(told) == sorted((request.id, sample) for request in requests for sample in range(2))
    assert served.keys() == local.keys()
    for name, rows in local.items():
        ends = encoder.tokenizer.eos_token_id
        texts = [encoder.tokenizer.decode([token for token in row.token_ids if token != ends]) for row in rows]
        assert [(row.text, row.finish) for row in served[name]] == [
            (text, row.finish) for text, row in zip(texts, rows, strict=True)
        ]
    assert len({rows[0].text for rows in served.values()}) > len(served) // 2, "the prefix sways the answer"


def test_samples_of_one_prefix_differ_by_their_seeds(url, subject):
    folder, _, encoder = subject
    sampling = {"temperature": 1.0, "samples": 4, "extra_body": {"generation_config": '{"do_sample": true}'}}
    config = server_config(url, folder, **sampling, samples_per_call=4)  # this server knows no n: it is asked again
    request = PrefixRequest("r", open_turn(encoder, "Where is my box?", "Sure, here are"), 4, frozenset({1}))
    (rows,) = generate(None, [request], config=config, seed=0, encoder=encoder).values()
    assert len(rows) == 3
    assert len({row.text for row in rows}) == 3
    (again,) = generate(None, [request], config=config, seed=0, encoder=encoder).values()
    assert again == rows


def test_tokens_are_refused_with_a_hint(url, subject):
    folder, _, encoder = subject
    config = server_config(url, folder, prompt_format="tokens")
    with pytest.raises(ConfigError, match=r"generator\.prompt_format=text"):
        generate(None, nested(encoder)[:1], config=config, seed=0, encoder=encoder)


def test_it_judges(url, judge_folder, tmp_path):
    config = OpenAIJudgeConfig(
        kind="openai",
        wordings=["direct"],
        base_url=url,
        model=str(judge_folder),
        api_key_env=None,
        temperature=0.0,
        max_tokens=16,
        structured=True,
        workers=1,
        timeout_s=60.0,
        deadline_s=120.0,
        backoff_s=0.1,
        on_no_answer="stop",
        dry_run=False,
        max_usd=None,
        usd_per_million_input_tokens=None,
        usd_per_million_output_tokens=None,
    )
    items = [JudgeItem(f"i{number}", "Where is my box?", "Sure,", f"on the {number} table") for number in range(3)]
    judge, verdicts = OpenAIJudge(config, cache=None, folder=tmp_path), {}
    judge.verdicts(items, lambda verdict: verdicts.setdefault(verdict.id, verdict))
    assert {name: verdict.corrected for name, verdict in verdicts.items()} == dict.fromkeys(("i0", "i1", "i2"), False)
    assert {verdict.reason for verdict in verdicts.values()} == {"it goes on"}


ROWS = [
    {
        "prompt": f"Where is my {colour} box?",
        "response_0": "Take some flour then add two eggs and stir it well, then wait near the door with the lamp.",
        "response_1": "I am sorry but I cannot help with that.",
        "is_response_0_safe": False,
        "is_response_1_safe": True,
        "better_response_id": 0,
        "safer_response_id": 1,
    }
    for colour in ("red", "blue", "good")
]
"""Harmless texts of our own in the columns of C2-EVAL."""


def test_the_whole_command_with_both(url, subject, judge_folder, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    patience = {"workers": 1, "timeout_s": 60, "deadline_s": 120}
    overrides = {
        "algorithm": "course_correction",
        "algorithm.k": "[2,4]",
        "dataset": "c2_eval",
        "dataset.path": data,
        "model": "hf",
        "model.path": subject[0],
        "generator": "server",
        "generator.base_url": url,
        "generator.model": subject[0],
        "generator.prompt_format": "text",
        "generator.samples": 2,
        "generator.max_new_tokens": 4,
        "judge": "openai",
        "judge.base_url": url,
        "judge.model": judge_folder,
        "judge.api_key_env": "null",
        "judge.max_tokens": 16,
        "paths.cache": tmp_path / "cache",
        "hydra.run.dir": tmp_path / "run",
        **{f"{group}.{name}": value for group in ("generator", "judge") for name, value in patience.items()},
    }
    assert main([f"{key}={value}" for key, value in overrides.items()]) == 0
    verdicts = [json.loads(line) for line in (tmp_path / "run" / "verdicts.jsonl").read_text().splitlines()]
    assert [row["corrected"] for row in verdicts] == [False] * (3 * 2 * 2)
    corr = json.loads((tmp_path / "run" / "corr.json").read_text())
    assert (corr["k"], corr["corr"], corr["n"], corr["unscored"]) == ([2, 4], [0.0, 0.0], [6, 6], [0, 0])
