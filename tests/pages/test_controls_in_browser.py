"""front.html's controls in a real browser: bounds, links, order of the table, labels, and what stays in view."""

import re

import pytest

from alignlab.front.collect import collect
from alignlab.front.comparisons import comparisons
from alignlab.front.page import Names, write_front_page
from support.browsing import Watched
from support.fronts import write_run

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra `dev`")
METHODS = {"modpo": 0.0, "soup": 0.25, "best_of_n": 0.5}


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    """Three methods at three w, close to each other, with lengths and a KL that is almost nothing."""
    folder = tmp_path_factory.mktemp("methods") / "a-folder-with-hyphens" / "and_a_second"
    runs = []
    for number, (algorithm, better) in enumerate(METHODS.items()):
        for w in (0.1, 0.5, 0.9):
            samples = [
                (
                    f"prompt {p}",
                    "answer",
                    {
                        "helpful": w + better / 4 + p / 3,
                        "safe": 1 - w + better / 4 - p / 4,
                        "kl": 1.6e-6 if (w, number) == (0.1, 0) else w + number,
                        "tokens_change": 10 * w - 4 + number,
                    },
                )
                for p in range(5)
            ]
            runs.append(write_run(folder / algorithm / f"w={w}", w=w, samples=samples, algorithm=algorithm))
    collection = collect(runs)
    names = {"names": Names("a", "b"), "exact": None, "reference": None}
    return write_front_page(
        collection, folder.parents[1] / "front.html", compared=comparisons(collection.points), **names
    )


def test_both_directions_of_a_bound_are_offered(browser, methods):
    page = Watched(browser, methods, anchor="#bounded=tokens_change").is_ready()
    tab = page.tab
    assert tab.input_value("#bound-side") == "least", "nobody knows which way is better"
    move = "const r = document.getElementById('bound'); r.value = 500; r.oninput()"
    tab.evaluate(move)
    least = tab.locator("tr.policy:not(.out)").count()
    tab.select_option("#bound-side", "most")
    most = tab.locator("tr.policy:not(.out)").count()
    assert 0 < least < 9
    assert least + most in (9, 10), "one may lie on the bound"
    assert "side=most" in tab.evaluate("location.hash")
    assert "at most" in tab.get_attribute("#bound", "aria-valuetext")
    tab.select_option("#bound-metric", "kl")
    assert tab.input_value("#bound-side") == "most", "less is better"
    tab.select_option("#bound-metric", "safe")
    assert tab.input_value("#bound-side") == "least"
    tab.select_option("#bound-side", "most")
    tab.evaluate("const r = document.getElementById('bound'); r.value = 0; r.oninput()")
    assert tab.locator("tr.policy:not(.out)").count() >= 1, "the least value itself"
    assert page.wrong == []


def test_a_bound_has_the_decimals_of_its_metric_and_which_w_names_the_methods(browser, methods):
    page = Watched(browser, methods, anchor="#bounded=kl").is_ready()
    tab = page.tab
    tab.evaluate("const r = document.getElementById('bound'); r.value = 0; r.oninput()")
    assert tab.inner_text("#bound-value") == "0.000"
    assert tab.inner_text("#bound-count").endswith(": modpo w = 0.1")
    cells = tab.locator("tr.policy td:last-child").all_inner_texts()
    assert all(re.fullmatch(r"\d\.\d{3}", cell) for cell in cells), cells
    tab.evaluate("const r = document.getElementById('bound'); r.value = 400; r.oninput()")
    assert tab.inner_text("#bound-count").endswith(": modpo w = 0.1, 0.5, 0.9; soup w = 0.1")


def test_the_address_and_the_link_always_agree(browser, methods):
    page = Watched(browser, methods).is_ready()
    tab = page.tab
    rows = tab.locator("tr.policy")

    def agree():
        tab.wait_for_timeout(250)  # a browser takes so many addresses a second
        assert tab.evaluate("location.href") == tab.evaluate("document.getElementById('link-text').value")

    def order():
        return tab.locator("select[data-key=order]").input_value()

    rows.nth(0).click()
    tab.wait_for_selector("#detail .prompt")
    tab.select_option("select[data-key=order]", "lowest")
    agree()
    tab.click("#link")
    old = tab.input_value("#link-text")
    rows.nth(1).click()
    tab.wait_for_selector("text=Paired difference")
    assert order() == "difference"
    agree()
    assert tab.input_value("#link-text") != old, "the field follows the selection"
    assert "order=" not in tab.evaluate("location.hash")
    tab.select_option("select[data-key=order]", "asked")
    agree()
    again = Watched(browser, methods, anchor=tab.evaluate("location.hash")).is_ready()
    again.tab.wait_for_selector("text=Paired difference")
    assert again.tab.locator("select[data-key=order]").input_value() == "asked"
    tab.locator("#detail button", has_text="A alone").click()
    playwright.expect(tab.locator("text=Paired difference")).to_have_count(0)
    assert order() == "asked"
    for value in range(0, 1000, 10):
        tab.evaluate(f"const r = document.getElementById('bound'); r.value = {value}; r.oninput()")
    agree()
    tab.evaluate("location.hash = 'kind=parallel'")
    agree()
    assert page.wrong == again.wrong == []


def test_the_table_is_sorted_by_click_and_by_keys(browser, methods):
    page = Watched(browser, methods).is_ready()
    tab = page.tab

    def shown(column):
        return tab.locator(f"tr.policy td:nth-child({column})").all_inner_texts()

    def sorts():
        return [one.get_attribute("aria-sort") for one in tab.locator("#table th").all()]

    usual = shown(3)
    assert sorts() == ["none"] * 5
    tab.locator("#table th", has_text="helpful").locator("button").click()
    assert sorts()[2] == "descending", "the best first"
    assert shown(3) == sorted(usual, key=float, reverse=True)
    assert "sort=-helpful" in tab.evaluate("location.hash")
    tab.locator("#table th", has_text="kl").locator("button").focus()
    tab.keyboard.press("Enter")
    assert sorts()[4] == "ascending"
    assert shown(5) == sorted(shown(5), key=float)
    tab.keyboard.press("Space")
    assert sorts()[4] == "descending", "the head keeps the focus"
    tab.keyboard.press("Enter")
    assert sorts() == ["none"] * 5
    assert shown(3) == usual
    tab.locator("#table th", has_text="method").locator("button").click()
    assert shown(1) == sorted(shown(1))
    tab.locator("tr.policy").first.click()
    assert tab.locator("tr.chosen td").first.inner_text() == "best_of_n"
    assert page.wrong == []


def test_who_is_dominated_is_said_and_compared_by_a_click(browser, methods):
    page = Watched(browser, methods).is_ready()
    tab = page.tab
    assert re.search(r"\d+ of 72 differences .* by Holm over 72 comparisons", tab.inner_text("#told-apart"))
    first = tab.locator("#told-apart li").first
    tab.evaluate("document.querySelector('#told-apart details').open = true")
    assert re.search(r"modpo w=0\.\d is dominated with a chance of \d+% by best_of_n", first.inner_text())
    first.locator("button").click()
    tab.wait_for_selector("text=Paired difference")
    assert tab.locator("tr.chosen").count() == 2
    assert re.match(r"A: best_of_n.*B: modpo", tab.inner_text("#detail h2"))


@pytest.mark.parametrize("width", [400, 1280])
def test_every_w_is_written_off_the_bars_or_said_to_be_left_out(browser, methods, width):
    page = Watched(browser, methods, width=width).is_ready()
    tab = page.tab
    tab.wait_for_selector("#plot .annotation")
    tab.wait_for_timeout(300)
    box = "(one) => (({ left, top, right, bottom }) => [left, top, right, bottom])(one.getBoundingClientRect())"
    written = tab.evaluate(f"[...document.querySelectorAll('#plot .annotation-text')].map({box})")
    left = tab.inner_text("#unlabelled")
    assert len(written) + int((re.match(r"\d+", left) or ["0"])[0]) == 9
    assert len(written) >= 6
    marks = tab.evaluate(f"[...document.querySelectorAll('#plot .points path')].map({box})")
    bars = tab.evaluate(f"[...document.querySelectorAll('#plot .errorbar path')].map({box})")
    thin = [[*one] for one in bars]
    for one in thin:  # the line within the box of a bar with its ends
        across = 0 if one[2] - one[0] < one[3] - one[1] else 1
        one[across] = one[across + 2] = (one[across] + one[across + 2]) / 2

    def meet(one, other):
        return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]

    for index, one in enumerate(written):
        inner = [one[0] + 1, one[1] + 3, one[2] - 1, one[3] - 3]  # the letters
        assert not any(meet(inner, other) for other in [*marks, *thin, *written[:index]]), index
    tab.uncheck("#intervals")
    tab.wait_for_timeout(300)
    assert tab.locator("#plot .annotation-text").count() >= len(written)
    assert page.wrong == []


def test_the_toolbar_does_not_cover_the_legend(browser, methods):
    page = Watched(browser, methods, width=400, touch=True).is_ready()
    bar = page.tab.locator("#plot .modebar").bounding_box()
    legend = page.tab.locator("#plot .legend").bounding_box()
    assert bar["height"] > 0
    assert bar["y"] + bar["height"] <= legend["y"] + 1
    assert page.tab.locator("#scroller").bounding_box()["y"] <= bar["y"], "nor is it cut off"


def test_the_legend_stays_in_view_over_scrolled_axes(browser, tmp_path):
    names = [f"metric_{number}" for number in range(15)]
    samples = [("prompt", "answer", {name: float(index) for index, name in enumerate(names)})]
    given = {"samples": samples, "axes": dict(zip(names, names, strict=True)), "weights": dict.fromkeys(names, 1 / 15)}
    runs = [write_run(tmp_path / name, w=0.5, algorithm=name, **given) for name in ("modpo", "soup", "best_of_n")]
    path = tmp_path / "front.html"
    write_front_page(collect(runs), path, names=Names("a", "b"), exact=None, reference=None)
    page = Watched(browser, path, width=400, anchor=f"#axes={'.'.join(names)}").is_ready()
    tab = page.tab
    playwright.expect(tab.locator("#plot .legend")).to_contain_text("better is up")
    for part in (0, 0.5, 1):
        tab.locator("#scroller").evaluate(f"(s) => {{ s.scrollLeft = {part} * (s.scrollWidth - s.clientWidth); }}")
        tab.wait_for_timeout(300)
        place, legend = (tab.locator(name).bounding_box() for name in ("#scroller", "#plot .legend .bg"))
        assert (tab.evaluate("document.getElementById('scroller').scrollLeft") > 300) == (part > 0)
        assert legend["x"] >= place["x"] - 1, part
        assert legend["x"] <= place["x"] + 0.2 * place["width"], "it begins in view"
    assert page.wrong == []


def test_heads_keep_their_arrow_and_paths_break_between_folders(browser, methods):
    page = Watched(browser, methods, width=400).is_ready()
    tab = page.tab
    heads = tab.locator("#table th").all_text_contents()
    assert [head for head in heads if "↑" in head or "↓" in head] == ["helpful\u00a0↑", "safe\u00a0↑", "kl\u00a0↓"]
    tab.locator("tr.policy").first.click()
    tab.wait_for_selector("#detail .facts a")
    lines = "[...document.querySelectorAll('#detail .facts .part')].map((one) => [one.textContent, one.offsetHeight])"
    found = dict(tab.evaluate(lines))
    assert "a-folder-with-hyphens/" in found
    tab.evaluate("document.querySelector('#detail details').open = true")
    keys = tab.locator("#detail details dt", has=tab.locator("wbr")).all_text_contents()
    assert any("." in key for key in keys), "a dotted key breaks at its dots"
    assert len(set(found.values())) == 1, "no folder's name takes two lines"
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400


def test_one_method_needs_no_swatch(browser, front, methods):
    single = Watched(browser, front).is_ready()
    assert single.tab.locator("tr.policy").count() == 3
    assert single.tab.locator("tr.policy .swatch").count() == 0
    several = Watched(browser, methods).is_ready()
    assert several.tab.locator("tr.policy .swatch").count() == 9
