"""The audit's, a synthesis' and a comparison's pages: what they say, and that every text in them is data."""

import dataclasses
from types import SimpleNamespace

import torch

from alignlab.config.objectives import Objectives
from alignlab.data.records import Pair
from alignlab.engine.scoring.rows import EncodedPairs
from alignlab.evaluation.audit import Scored, Suspect, spread
from alignlab.evaluation.audit_page import Audited, write_audit_page
from alignlab.pages import Link
from alignlab.pages.parts import numbers
from alignlab.stats import share_interval
from alignlab.synthesis.page import MOST_SETS, write_page
from support.pages import HOSTILE, check_safe

ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "header", "nav", "a", "main", "section", "h1", "h2", "p", "div",
    "dl", "dt", "dd", "wbr", "table", "thead", "tbody", "tr", "td", "th", "caption", "details", "summary", "pre",
}  # fmt: skip
ACTING = set("\x00\x07\x08\x1b\u202e\u2066\u2069")


def checked(path):
    page = check_safe(path)
    assert {tag for tag, _ in page.tags} <= ALLOWED
    assert not ACTING & set(path.read_text())
    assert all("open" not in attributes for tag, attributes in page.tags if tag == "details")
    assert "{'" not in "".join(text for text in page.texts if "raw" not in text), "no raw dict"
    return page


def words(page):
    return " ".join(" ".join(page.texts).split())


def audited(texts):
    pairs = [Pair(str(n), text, text + "+", text, f"g{n}", "better") for n, text in enumerate(texts)]
    gaps, groups = [-1.0 - n for n in range(len(pairs))], [pair.group for pair in pairs]
    none, margins = torch.zeros(0, 2), torch.tensor([[2.0, -7.0]] * len(pairs))
    scored = Scored(
        pairs,
        EncodedPairs([SimpleNamespace(id=pair.id, cut=False) for pair in pairs], 0, 0, 0),
        none,
        None,
        {"better": margins, "safer": margins},
        None,
    )
    doubted = [Suspect(pair.id, "better", "reward", gap) for pair, gap in zip(pairs, gaps, strict=True)]
    doubted.append(Suspect("0", "safer", "reward", -9.0))
    share = share_interval([0.0] * len(pairs), groups).as_record()
    metrics = {f"{name}_agreement{part}": share for name in ("better", "safer") for part in ("", "_all")}
    metrics |= {f"{name}_margin": {**spread(gaps, groups).as_record(), "scale": None} for name in ("better", "safer")}
    objectives = Objectives("better", {"better": 0.3, "safer": 0.7}, "better")
    numbers = {("better", "reward"): 700, ("safer", "reward"): 1}
    return Audited(texts[0], texts[0], objectives, scored, doubted, metrics, numbers, [texts[0]])


def test_the_audit(tmp_path):
    path = write_audit_page(tmp_path, audited(["one", "two"]), links=[Link("all runs", "../index.html")])
    page = checked(path)
    text = " ".join(page.texts)
    assert "probability of the label below 0.001, pair 0" in text
    assert "probability of the label 0.269, pair 0" in text
    assert "Labels in doubt: 3 of 701" in text, "of all of them, not of the listed ones"
    assert "labels of better that the reward contradicts 700" in words(page)
    assert "prompt one chosen one+ rejected one" in words(page)
    assert "prompt one chosen one rejected one+" in words(page), "as the other objective's label chooses"
    assert "../index.html" in [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert path.stat().st_mode & 0o077 == 0


def test_an_audit_without_doubts_says_none(tmp_path):
    found = dataclasses.replace(audited(["one", "two"]), doubted=[], contradicted={("better", "reward"): 0})
    text = words(checked(write_audit_page(tmp_path, found)))
    assert "Labels in doubt: none" in text
    assert "open only what you want to read" not in text


def test_hostile_text_in_the_audit(tmp_path):
    page = checked(write_audit_page(tmp_path, audited(HOSTILE)))
    assert "<script>alert(1)</script>" in "".join(page.texts)


def synthesised(folder, texts, kind="pku_saferlhf"):
    row = {"kind": "harmful", "rank": [0, 5], "role": ["safe", "harmful"]}
    counts = {name: {} for name in ("left_out", "dropped", "cut_at_limit")}
    counts |= {"sets": {"harmful": len(texts)}, "pairs": {"harmful": len(texts)}, "length_bias": {"note": "none"}}
    counts["lengths"] = {"harmful": [{"rank": 0, "responses": len(texts), "mean": 4, "median": 4.0}]}
    counts["left_out"] = {texts[0]: 1}
    sets = [{**row, "id": f"{n}{text[:9]}", "prompt": text, "responses": [text, text]} for n, text in enumerate(texts)]
    settings = {"dataset": {"name": texts[0], "path": None}, "seed": 0, "rate": 0.0005, "tops": [0.9, 1.0]}
    return write_page(folder, kind=kind, settings=settings, counts=counts, strategy="adjacent", sets=sets)


def test_the_card_of_a_synthesis(tmp_path):
    path = synthesised(tmp_path, [f"text {number}" for number in range(MOST_SETS + 9)])
    text = " ".join(checked(path).texts)
    assert f"{MOST_SETS} of {MOST_SETS + 9} sets" in text
    assert "This data set holds harmful text." in text
    assert f"{MOST_SETS + 9} 4.0 4.0" in " ".join(text.split()), "tokens have one decimal"
    assert "dataset. path null" in words(checked(path)), "a key breaks at its dots"
    assert "rate 0.0005" in words(checked(path))
    assert "tops 0.9, 1.0" in words(checked(path))
    assert path.stat().st_mode & 0o077 == 0
    assert synthesised(tmp_path, ["a"], kind="toy").stat().st_mode & 0o044, "the toy's words harm nobody"


def test_hostile_text_in_a_synthesis(tmp_path):
    page = checked(synthesised(tmp_path, HOSTILE))
    assert "<script>alert(1)</script>" in "".join(page.texts)


def test_numbers_of_a_line_have_the_same_decimals():
    assert numbers([-0.25, 0.0078, None], 2) == ["-0.25", "0.01", "unknown"]
    assert numbers([0.0078, -0.00001], 2) == ["0.0078", "0.0000"]
    assert numbers([]) == []
