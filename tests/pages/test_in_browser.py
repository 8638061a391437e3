"""The pages in a real browser: what they do when used, and that no text in them acts. Debian's chromium, headless."""

import csv
import json
import re
import time

import pytest

from alignlab.course_correction.page import Transcript
from alignlab.course_correction.page import write_page as write_course_correction
from alignlab.course_correction.statistics import Scored, corr_curve
from alignlab.front.collect import collect
from alignlab.front.page import Names, write_front_page
from alignlab.pages.index import write_index
from alignlab.synthesis.page import write_page as write_synthesis
from support.browsing import Watched, centres
from support.fronts import write_front, write_large_front, write_run
from support.pages import HOSTILE

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra `dev`")


def test_a_front_does_what_it_says(browser, front):
    page = Watched(browser, front).is_ready()
    tab = page.tab
    points = tab.locator("#plot .scatterlayer .points path")
    assert points.count() == 4, "three policies and the reference"
    offered = [button.get_attribute("data-title") for button in tab.locator("#plot .modebar-btn").all()]
    assert "Zoom" in offered
    assert not [title for title in offered if "hare" in title or "loud" in title], "nothing is uploaded"

    boxes = [points.nth(index).bounding_box() for index in range(4)]
    rightmost = max((box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes)
    tab.mouse.move(*rightmost)
    tab.wait_for_selector("#plot .hovertext")
    assert "0.9" in tab.locator("#plot .hovertext").first.text_content()
    tab.mouse.click(*rightmost)
    tab.wait_for_selector("#detail .prompt")
    assert "w=0.9" in tab.locator("#detail").inner_text().replace(" ", "")
    tab.locator("tr.policy", has_text="0.1").first.click()
    tab.wait_for_selector("text=Paired difference")
    assert tab.locator("#detail .prompt").count() == 4
    assert "4 of 4 prompts; helpful of A → B (B \N{MINUS SIGN} A)" in tab.inner_text("#detail"), (
        "what two numbers of a row are"
    )
    mark = "getComputedStyle(document.querySelector('.prompt > summary'), '::before').content"
    assert tab.evaluate(mark) == '"▸"', "a row shows that it opens"
    tab.locator("#detail .prompt > summary").first.click()
    assert tab.evaluate(mark) == '"▾"'
    tab.wait_for_selector("#detail .prompt pre")
    tab.fill("#search", "prompt 2")
    playwright.expect(tab.locator("#detail .prompt")).to_have_count(1)
    tab.evaluate("const r = document.getElementById('bound'); r.value = 900; r.oninput()")
    playwright.expect(tab.locator("tr.out")).not_to_have_count(0)
    out = tab.locator("tr.out").count()
    assert out < 3
    rows = list(csv.reader(page.saved("#csv").decode().splitlines()))
    assert len(rows) == 1 + 3 - out, "what meets the bound"
    assert page.saved("#png").startswith(b"\x89PNG")
    assert page.saved("#svg").startswith(b"<svg")
    tab.select_option("#kind", "parallel")
    tab.click("#link")
    anchor = "#" + tab.input_value("#link-text").partition("#")[2]
    again = Watched(browser, front, anchor=anchor).is_ready()
    again.tab.wait_for_selector("text=Paired difference")
    assert again.tab.input_value("#search") == "prompt 2"
    assert again.tab.input_value("#kind") == "parallel"
    assert page.wrong == again.wrong == []


def shown(page):
    """Rows that neither the bound nor the selection leaves out."""
    return page.tab.locator("tr.policy:not(.out)").count()


def drag(page, start, end):
    page.tab.mouse.move(*start)
    page.tab.mouse.down()
    page.tab.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    page.tab.mouse.move(*end)
    page.tab.mouse.up()


def test_a_brush_outlasts_every_redraw_and_is_in_the_link(browser, front):
    page = Watched(browser, front, anchor="#reference=false").is_ready()
    tab = page.tab
    counted = playwright.expect(tab.locator("#brush-count"))
    x, y = max(centres(page))
    tab.hover("#plot .nsewdrag")
    tab.click('#plot .modebar-btn[data-title="Box Select"]')
    drag(page, (x - 25, y - 25), (x + 25, y + 25))
    counted.to_have_text("1 policy selected")
    for change in (
        lambda: tab.uncheck("#intervals"),
        lambda: tab.select_option("#x", "kl"),
        lambda: tab.select_option("#kind", "parallel"),
        lambda: tab.locator("tr.policy:not(.out)").click(),
        lambda: tab.fill("#search", "prompt 2"),
        lambda: tab.emulate_media(color_scheme="dark"),
    ):
        change()
        counted.to_have_text("1 policy selected")
        assert shown(page) == 1
    playwright.expect(tab.locator("#detail .prompt")).to_have_count(1)
    tab.click("#link")
    anchor = "#" + tab.input_value("#link-text").partition("#")[2]
    again = Watched(browser, front, anchor=anchor).is_ready()
    again.tab.wait_for_selector("#detail .prompt")
    assert shown(again) == again.tab.locator("#detail .prompt").count() == 1
    assert again.tab.input_value("#kind") == "parallel"
    assert again.tab.input_value("#x") == "kl"
    assert again.tab.input_value("#search") == "prompt 2"
    assert len(list(csv.reader(again.saved("#csv").decode().splitlines()))) == 2, "head and the selected policy"
    again.tab.click("#unbrush")
    assert shown(again) == 3
    assert page.wrong == again.wrong == []


def test_a_brush_over_parallel_axes(browser, front):
    page = Watched(browser, front, anchor="#kind=parallel&reference=false").is_ready()
    tab = page.tab
    counted = playwright.expect(tab.locator("#brush-count"))
    (left, top), *_ = sorted(centres(page))
    low = max(y for x, y in centres(page) if abs(x - left) < 3)
    drag(page, (left - 12, top - 12), (left + 12, top + 12))
    counted.to_have_text("1 policy selected")
    tab.keyboard.down("Shift")
    drag(page, (left - 12, low - 12), (left + 12, low + 12))
    tab.keyboard.up("Shift")
    counted.to_have_text("2 policies selected")
    tab.click("#shown-axes summary")
    tab.locator("#axes label", has_text="KL").click()
    counted.to_have_text("2 policies selected")
    tab.click("#shown-axes summary")
    left, top = min(centres(page))
    tab.mouse.click(left, top)
    tab.wait_for_selector("#detail h2")
    counted.to_have_text("2 policies selected")
    for clear in (
        lambda: drag(page, (left - 12, top - 20), (left + 12, top - 8)),
        lambda: tab.mouse.dblclick(left + 30, top - 15),
    ):
        clear()
        playwright.expect(tab.locator("#brush")).to_be_hidden()
        drag(page, (left - 12, top - 12), (left + 12, top + 12))
        playwright.expect(tab.locator("#brush")).to_be_visible()
    assert page.wrong == []


def test_a_zoom_outlasts_a_switch(browser, front):
    page = Watched(browser, front).is_ready()
    points = centres(page)
    drag(page, (min(points)[0] - 10, min(y for _, y in points) - 10), (max(points)[0] - 10, max(y for _, y in points)))
    ends = "document.getElementById('plot').layout.xaxis.range"
    zoomed = page.tab.evaluate(ends)
    page.tab.uncheck("#intervals")
    assert page.tab.evaluate(ends) == zoomed
    page.tab.select_option("#x", "kl")
    assert page.tab.evaluate(ends) != zoomed


def test_what_a_link_says_wrong_is_left_out_and_named(browser, front):
    usual = Watched(browser, front).is_ready()
    first = usual.tab.locator("tr.policy").first.get_attribute("data-id")
    assert usual.tab.locator("#odd").is_hidden()
    for anchor, named in (
        (f"chosen={first}.{first}", None),
        (f"chosen=nobody.{first}", "chosen=nobody"),
        ("chosen=%ff%&brush=nobody", "chosen="),
        ("brush=nobody", "brush=nobody"),
        ("category=none", "category=none"),
        ("bound=x", "bound=x"),
        ("bound=", "bound="),
        ("bound=1e99&bounded=helpful", "bound=1e+99"),
        ("x=nothing&y=%zz&axes=helpful&kind=cake", "kind=cake"),
        ("intervals=maybe&evil=%3Cimg%20src=x%20onerror=alert(1)%3E", "evil=<img src=x onerror=alert(1)>"),
        ("score=%E2%80%AEx", "score=\\u202ex"),
    ):
        page = Watched(browser, front, anchor=f"#{anchor}").is_ready()
        odd = page.tab.locator("#odd")
        assert (odd.inner_text() if odd.is_visible() else None) == named or named in odd.inner_text(), anchor
        assert [page.tab.input_value(f"#{name}") for name in ("x", "y", "kind")] == ["helpful", "safe", "scatter"]
        assert page.tab.is_checked("#intervals")
        assert shown(page) == 3, anchor
        if first in anchor:
            page.tab.wait_for_selector("#detail .prompt")
            assert page.tab.locator("tr.chosen").count() == 1
            assert "Paired difference" not in page.tab.inner_text("#detail"), anchor
            assert page.tab.locator("#detail .prompt").count() == 4, anchor
        assert page.wrong == [], anchor
        page.tab.close()


def test_the_table_is_used_by_keys_and_keeps_the_focus(browser, front):
    page = Watched(browser, front).is_ready()
    tab = page.tab
    focused = "document.activeElement.closest('tr')?.rowIndex"
    tab.locator("tr.policy button").first.focus()
    tab.keyboard.press("Enter")
    playwright.expect(tab.locator("tr.chosen")).to_have_count(1)
    assert tab.evaluate(focused) == 1
    tab.keyboard.press("Tab")
    tab.keyboard.press("Space")
    tab.wait_for_selector("text=Paired difference")
    assert tab.evaluate(focused) == 2
    assert [one.get_attribute("aria-pressed") for one in tab.locator("tr.policy button").all()] == [
        "true",
        "true",
        "false",
    ]
    tab.locator("#detail button", has_text="swap").focus()
    before = tab.inner_text("#detail h2")
    tab.keyboard.press("Enter")
    playwright.expect(tab.locator("#detail h2")).not_to_have_text(before)
    playwright.expect(tab.locator("#detail button", has_text="swap")).to_be_focused()
    nameless = "[...document.querySelectorAll('input, select, button')].filter((e) => e.checkVisibility() && "
    nameless += "!e.labels?.length && !e.ariaLabel && !e.textContent.trim()).map((e) => e.outerHTML)"
    assert tab.evaluate(nameless) == []


def test_harmful_text_stays_folded_whatever_a_link_says(browser, tmp_path):
    runs = write_front(tmp_path / "runs", prompts=4, kind="pku_saferlhf")
    names = Names("pku_saferlhf", "tiny")
    path = write_front_page(collect(runs), tmp_path / "front.html", names=names, exact=None, reference=None)
    page = Watched(browser, path, anchor="#texts=true").is_ready()
    page.tab.locator("tr.policy").first.click()
    page.tab.wait_for_selector("#detail .prompt")
    assert "texts=true" in page.tab.inner_text("#odd")
    assert page.tab.locator("#detail .prompt .ask").all_inner_texts() == [f"prompt {n}" for n in (1, 2, 3, 4)]
    assert page.tab.locator("#detail pre", has_text="answer").count() == 0
    page.tab.check("#texts")
    page.tab.click("#link")
    assert "texts" not in page.tab.input_value("#link-text")


def test_few_policies_and_little_known(browser, tmp_path):
    """One policy without KL or samples; none at all; two without a common metric to draw."""
    samples = [("مرحبا بالعالم", "", {"helpful": 1.0, "safe": 2.0})]
    one = write_run(tmp_path / "one", w=0.5, samples=samples)
    (one / "metrics.jsonl").unlink()
    bare = write_run(tmp_path / "bare", w=0.5, samples=samples)
    for name in ("generations.jsonl", "scores.jsonl", "metrics.jsonl", "config.json"):
        (bare / name).unlink()
    for folders, title in (([one], "1 policy"), ([bare], "1 policy"), ([tmp_path / "no"], "No policy yet")):
        names = Names("toy", "tiny")
        path = write_front_page(collect(folders), tmp_path / "front.html", names=names, exact=None, reference=None)
        page = Watched(browser, path, width=400).is_ready()
        assert page.tab.inner_text("#table h2") == title
        if folders == [one]:
            page.tab.locator("tr.policy").click()
            page.tab.locator("#detail .prompt summary").click()
            page.tab.wait_for_selector("text=(an empty response)")
            assert page.tab.evaluate("getComputedStyle(document.querySelector('.prompt pre')).direction") == "rtl"
        elif folders == [bare]:
            page.tab.locator("tr.policy").click()
            page.tab.wait_for_selector("text=No samples")
        else:
            assert "1 run gave no point" in page.tab.inner_text("#failures")
        assert page.tab.evaluate("document.documentElement.scrollWidth") <= 400
        assert page.wrong == []


def test_notes_leave_the_plot_its_place(browser, tmp_path):
    runs = write_front(tmp_path / "runs", prompts=4)
    for notes in ((), ("safer: w=0.3 meets it",)):
        path = tmp_path / "front.html"
        write_front_page(collect(runs), path, names=Names("a", "b"), exact=None, reference=None, notes=notes)
        tab = Watched(browser, path).is_ready().tab
        plot, table = tab.locator("#view").bounding_box(), tab.locator("#policies").bounding_box()
        assert table["x"] > plot["x"] + plot["width"] > 700, "the table is to the right of the plot"


def test_what_the_browser_would_tell(browser, front, tmp_path):
    """Control: a script, a remote image and a handler are refused by the policy, and the refusals are seen."""
    path = tmp_path / "wrong.html"
    wrong = "<img src='https://example.invalid/x.png'><script>alert(1)</script><b onclick='alert(1)'>x</b>"
    path.write_text(front.read_text().replace("<main", f"{wrong}<main", 1))
    page = Watched(browser, path).is_ready()
    page.tab.locator("b").click()
    said = " ".join(page.wrong)
    assert len(page.wrong) >= 3
    assert "dialog" not in said
    assert len(re.findall("Content Security Policy", said)) >= 3


def test_a_large_front_opens_in_two_seconds(browser, tmp_path):
    """Of three tries the fastest: others work on this machine too."""
    path = write_large_front(tmp_path)
    taken = []
    for _ in range(3):
        start = time.monotonic()
        page = Watched(browser, path).is_ready()
        taken.append(time.monotonic() - start)
        assert page.tab.locator("tr.policy").count() == 20
        assert page.wrong == []
        page.tab.close()
    print(f"opened in {min(taken):.2f} s")
    assert min(taken) < 2


def hostile_pages(folder):
    """Each kind of page with every hostile text as prompt, response, name and error."""
    texts = [*HOSTILE[:-1], "x" * 20_000]
    samples = [(text, text, {"helpful": 1.0 + index, "safe": index % 3.0}) for index, text in enumerate(texts)]
    names = [f"{index}{text[:40]}".replace("/", "_").replace("\0", "") for index, text in enumerate(texts[:2])]
    runs = [
        write_run(folder / name, w=w, samples=samples, recipe={"<b>": texts[0]})
        for name, w in zip(names, (0.1, 0.9), strict=True)
    ]
    for index, text in enumerate(texts):
        (folder / f"failed-{index}").mkdir()
        record = {"status": "failed", "algorithm": "modpo", "model": "tiny", "dataset": "toy", "error": text}
        (folder / f"failed-{index}" / "result.json").write_text(json.dumps(record))
    failed = sorted(folder.glob("failed-*"))
    collection = collect([*runs, *failed])
    yield write_front_page(
        collection, folder / "front.html", names=Names(texts[0], texts[1]), exact=None, reference=None
    )
    yield write_index(folder).path
    curve = corr_curve([Scored("a", "a", 10, 0, True)], ks=(10,))
    items = [Transcript(f"{index}{text[:9]}", 10, text, text, text, True, text) for index, text in enumerate(texts)]
    facts = dict(zip(texts, texts, strict=True))
    yield write_course_correction(
        folder / "cc.html", title=texts[0], curves={texts[2]: curve}, transcripts=items, facts=facts, warning=texts[3]
    )
    counts = {name: {} for name in ("left_out", "dropped", "cut_at_limit", "lengths", "pairs")}
    sets = [
        {"id": text[:9], "kind": text, "prompt": text, "responses": [text], "rank": [0], "role": [text]}
        for text in texts
    ]
    counts |= {"sets": {"harmful": len(sets)}, "length_bias": {"note": texts[4]}}
    yield write_synthesis(folder, kind="other", settings=facts, counts=counts, strategy=texts[5], sets=sets)


def test_nothing_in_a_text_acts_and_no_layout_breaks(browser, tmp_path):
    for path in hostile_pages(tmp_path):
        page = Watched(browser, path, width=400)
        if path.name == "front.html":
            page.is_ready()
            for index in range(2):
                page.tab.locator("tr.policy").nth(index).click()
            page.tab.wait_for_selector("#detail .prompt")
            assert page.tab.locator("#detail .prompt").count() == len(HOSTILE)
        page.tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        assert page.tab.evaluate("document.documentElement.scrollWidth") <= 400, path.name
        assert page.tab.evaluate("document.querySelectorAll('iframe, object, embed, svg[onload]').length") == 0
        assert page.wrong == [], path.name
