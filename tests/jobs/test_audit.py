"""`algorithm=audit` against the plain computation: whole logits, one row at a time, adapters through PEFT's own API."""

import json
import math
import random
import re

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignlab.cli import main
from alignlab.models.scratch import bpe_tokenizer
from support.checkpoints import save_checkpoint
from support.commands import assert_refused

TEMPLATE = "BEGINNING OF CONVERSATION: USER: {raw_prompt} ASSISTANT:"
WORDS = "turn the red wheel slowly then lift a small lid and wait until water is warm before you pour it :) !"
BETA = 0.1


def sentence(rng, most=24):
    return " ".join(rng.choices(WORDS.split(), k=rng.randint(1, most)))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base model, two PEFT folders and a preference file, none of them made by alignlab's own jobs."""
    folder = tmp_path_factory.mktemp("audit")
    rng = random.Random(0)
    prompts = [sentence(rng) for _ in range(24)]
    rows = [
        {
            "prompt": prompts[number % 20],
            "response_0": sentence(rng),
            "response_1": sentence(rng),
            "better_response_id": rng.randint(0, 1),
            "safer_response_id": rng.randint(0, 1),
        }
        for number in range(40)
    ]
    rows[3]["response_0"] = ") at once"  # merges with the template's last colon
    rows[5]["prompt"] = " ".join(rng.choices(WORDS.split(), k=44))
    rows[4]["response_1"] = rows[4]["response_0"] + " and more"
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = bpe_tokenizer([TEMPLATE + ":) " + sentence(rng, 60) for _ in range(60)], 400)
    save_checkpoint(folder / "base", tokenizer, vocab_size=400)
    targets = {"policy": "all-linear", "margin": ["q_proj", "v_proj", "lm_head"]}
    for seed, (name, modules) in enumerate(targets.items()):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(folder / "base")
        adapted = get_peft_model(
            base, LoraConfig(r=4, lora_alpha=8, target_modules=modules, use_rslora=name == "margin")
        )
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        adapted.save_pretrained(folder / name)
    return folder


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def command(root, *overrides, policy=True):
    """The issue's own line, as a shell hands it over."""
    given = [
        "algorithm=audit",
        "model=hf",
        f"model.path={root}/base",
        f"model.prompt_template={TEMPLATE}",
        "dataset=pku_saferlhf",
        f"dataset.path={root}/rows.jsonl",
        "dataset.split=null",
        f"algorithm.rewards.safer.adapter={root}/margin",
        "algorithm.rewards.safer.beta=0.1",
        "algorithm.beta=0.1",
        f"paths.runs={root}/runs",
        f"paths.cache={root}/cache",
    ]
    return main([*given, *([f"algorithm.adapter={root}/policy"] if policy else []), *overrides])


def audited(root, *overrides, policy=True):
    """The pairs and the result of one audit."""
    out = root / ("out-" + "-".join(overrides).replace("/", "_"))
    assert command(root, f"hydra.run.dir={out}", *overrides, policy=policy) == 0
    pairs = read(out / "pairs.jsonl")
    return pairs, json.loads((out / "result.json").read_text()), out


def logp(model, tokenizer, start, text):
    """Log-probability of the tokens of a text from `start` on, EOS among them; everything in the open."""
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        logps = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1)
    return sum(float(logps[index - 1, ids[index]]) for index in range(start, len(ids)))


def shared(*rows):
    return next(index for index, tokens in enumerate(zip(*rows, strict=False)) if len(set(tokens)) > 1)


@pytest.fixture(scope="module")
def plain(root):
    """(row, side) -> log-probabilities of the three models, counted from where the two whole texts part."""
    tokenizer = AutoTokenizer.from_pretrained(root / "base")
    rows = read(root / "rows.jsonl")
    found = {}
    for name in ("ref", "policy", "margin"):
        model = AutoModelForCausalLM.from_pretrained(root / "base")
        if name != "ref":
            model = PeftModel.from_pretrained(model, root / name)
        model.eval()
        for number, row in enumerate(rows):
            texts = [TEMPLATE.format(raw_prompt=row["prompt"]) + row[f"response_{side}"] for side in (0, 1)]
            start = shared(*(tokenizer(text)["input_ids"] + [-1] for text in texts))
            for side, text in enumerate(texts):
                found[name, number, side] = logp(model, tokenizer, start, text)
    return rows, found


@pytest.mark.parametrize("w", [0.1, 0.3, 0.5, 0.9])
def test_every_pair_equals_the_plain_computation(root, plain, w):
    rows, logps = plain
    pairs, result, _ = audited(root, f"w={w}")
    assert len(pairs) == len(rows) == result["rows"]["pairs"]
    assert len({pair["id"] for pair in pairs}) == len(pairs)
    for number, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
        chosen = row["better_response_id"]
        assert (pair["prompt"], pair["chosen"]) == (row["prompt"], row[f"response_{chosen}"])
        assert pair["rejected"] == row[f"response_{1 - chosen}"]
        gap = {
            name: logps[name, number, chosen] - logps[name, number, 1 - chosen] for name in ("ref", "policy", "margin")
        }
        margin = BETA * (gap["margin"] - gap["ref"])
        logit = (BETA * (gap["policy"] - gap["ref"]) - (1 - w) * margin) / w
        assert pair["ref_chosen_logp"] - pair["ref_rejected_logp"] == pytest.approx(gap["ref"], abs=3e-5)
        assert pair["policy_chosen_logp"] - pair["policy_rejected_logp"] == pytest.approx(gap["policy"], abs=3e-5)
        assert list(pair["margins"]) == ["safer"]
        assert pair["margins"]["safer"][0] - pair["margins"]["safer"][1] == pytest.approx(margin, abs=3e-6)
        assert pair["loss"] == pytest.approx(math.log1p(math.exp(-logit)), abs=3e-5)
    assert max(abs(logps["policy", n, 0] - logps["ref", n, 0]) for n in range(len(rows))) > 1
    assert result["metrics"]["loss"]["n"] == len(rows)


def test_without_a_policy_there_are_margins_only(root):
    pairs, result, _ = audited(root, "w=0.5", "force=true", policy=False)
    assert set(pairs[0]) == {
        "id", "prompt", "chosen", "rejected", "objective", "cut", "ref_chosen_logp", "ref_rejected_logp", "margins",
    }  # fmt: skip
    assert "loss" not in result["metrics"]


def test_the_summary_is_what_the_pairs_say(root):
    pairs, result, out = audited(root, "w=0.5", "dataset.test_share=0.4")
    rows = read(root / "rows.jsonl")
    right, doubted = [], {}
    for row, pair in zip(rows, pairs, strict=True):
        chosen, rejected = pair["margins"]["safer"]
        same = row["better_response_id"] == row["safer_response_id"]
        gap = chosen - rejected if same else rejected - chosen
        right.append(gap > 0)
        if gap < 0:
            doubted[pair["id"]] = gap
    metric = result["metrics"]["safer_agreement_all"]
    assert metric["n"] == len(pairs)
    assert 0 < sum(right) < len(right)
    held_out = result["metrics"]["safer_agreement"]
    assert 0 < held_out["n"] < len(pairs)
    spread = result["metrics"]["safer_margin"]
    gaps = torch.tensor([pair["margins"]["safer"][0] - pair["margins"]["safer"][1] for pair in pairs]).double()
    assert spread["std"] == pytest.approx(float(gaps.std(correction=0)), rel=1e-5)
    assert spread["quantiles"]["0.5"] == pytest.approx(float(gaps.quantile(0.5)), rel=1e-4, abs=1e-6)
    suspects = read(out / "mislabelled.jsonl")
    by_reward = [suspect for suspect in suspects if suspect["by"] == "reward"]
    assert {suspect["id"]: pytest.approx(suspect["gap"], abs=1e-6) for suspect in by_reward} == doubted
    assert [s["gap"] for s in by_reward] == sorted(doubted.values())
    by_policy = [suspect for suspect in suspects if suspect["by"] == "policy"]
    assert {suspect["id"] for suspect in by_policy} == {pair["id"] for pair in pairs if pair["loss"] > math.log(2)}
    assert all(set(suspect) == {"id", "objective", "by", "gap", "label_probability"} for suspect in suspects)


def test_the_console_shows_no_text_of_the_data_and_names_a_wrong_sign(root, capfd):
    rows = read(root / "rows.jsonl")
    pairs, _, _ = audited(root, "w=0.5")
    for row, pair in zip(rows, pairs, strict=True):  # labels that are the reward's own, turned round
        chosen, rejected = pair["margins"]["safer"]
        preferred = row["better_response_id"] if chosen > rejected else 1 - row["better_response_id"]
        row["safer_response_id"] = 1 - preferred
    wrong = root / "wrong.jsonl"
    wrong.write_text("".join(json.dumps(row) + "\n" for row in rows))
    capfd.readouterr()
    _, result, _ = audited(root, "w=0.5", f"dataset.path={wrong}", "algorithm.mislabelled=7", "dataset.test_share=0.4")
    said = capfd.readouterr().out
    assert result["metrics"]["safer_agreement"]["mean"] == 0
    assert "safer: agrees with its own labels on 0.000" in said
    assert "the sign is probably wrong" in said
    assert "safer: 40 labels that the reward contradicts, the 7 most decided, by id" in said
    by_policy = int(re.search(r"(\d+) labels that the policy contradicts, the 7 most decided", said)[1])
    assert (result["rows"]["contradicted"], result["rows"]["mislabelled"]) == (40 + by_policy, 7 + 7)
    assert not any(
        row[name] in said for row in rows for name in ("prompt", "response_0", "response_1") if len(row[name]) > 9
    )


def test_a_limit_cuts_marks_and_leaves_out(root):
    whole, _, _ = audited(root, "w=0.5")
    pairs, result, _ = audited(root, "w=0.5", "algorithm.max_length=46", "dataset.on_long=cut")
    tokenizer = AutoTokenizer.from_pretrained(root / "base")
    for pair, other in zip(pairs, whole, strict=True):
        rendered = TEMPLATE.format(raw_prompt=pair["prompt"])
        prompt, *texts = ([*tokenizer(rendered + text)["input_ids"]] for text in ("", pair["chosen"], pair["rejected"]))
        start = min(shared([*prompt, -1], [*text, -2]) for text in texts)
        if start >= 46:
            assert pair["cut"] is pair["loss"] is pair["ref_chosen_logp"] is None
            assert pair["margins"] == {"safer": None}
        else:
            assert pair["cut"] == any(len(text) + 1 > 46 for text in texts)
            assert (pair["loss"] == pytest.approx(other["loss"], abs=1e-6)) or pair["cut"]
    counts = result["rows"]
    assert counts["too_long"] == sum(pair["cut"] is None for pair in pairs) > 0
    assert counts["cut"] == sum(pair["cut"] is True for pair in pairs) > 0
    assert result["metrics"]["loss"]["n"] == counts["pairs"] - counts["too_long"]


def test_what_is_known_is_not_computed_again(root):
    audited(root, "w=0.5")
    _, third, _ = audited(root, "w=0.7")
    assert third["cache"]["reference"]["computed"] == third["cache"]["safer"]["computed"] == 0
    assert third["cache"]["policy"]["computed"] == 0


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("w=0", "w=0: the weight of better must be > 0 with algorithm.adapter"),
        ("w=2", "w=2: must be between 0 and 1"),
        ("algorithm.adapter=nowhere/at/all", "algorithm.adapter=nowhere/at/all: no such folder"),
        ("algorithm.rewards.nicer.beta=1", "algorithm.rewards.nicer: no such objective"),
        ("algorithm.max_length=1", "algorithm.max_length=1: must be a finite number >= 2, in tokens"),
        ("algorithm.rewards.safer.beta=null", "algorithm.rewards.safer.beta"),
    ],
)
def test_refused_before_a_model_is_loaded(root, capfd, override, said):
    assert_refused(command(root, override), capfd, said)
