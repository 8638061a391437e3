"""front.html in a real browser: taps, narrow pages, what is left out, many axes, and policies that were evaluated."""

import base64
import itertools

import pytest

from alignlab.front.collect import collect
from alignlab.front.page import Names, write_front_page
from alignlab.front.table import write_csv
from support.browsing import Watched, centres
from support.fronts import write_evaluated, write_run

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra `dev`")
FAINT = 0.22
"""Opacity of what is left out, as in front.js."""


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A front of evaluations in deep folders, with the reference, and front.csv beside the page."""
    root = tmp_path_factory.mktemp("scored")
    collection = collect(write_evaluated(root / "runs" / "a_long_name_of_a_model" / "and_of_its_data"))
    folder = root / "front" / "some" / "levels" / "below"
    folder.mkdir(parents=True)
    write_csv(collection, folder / "front.csv")
    return write_front_page(collection, folder / "front.html", names=Names("a", "b"), exact=None, reference=None)


@pytest.mark.parametrize("width", [400, 1280])
def test_a_tap_chooses_and_keeps_the_zoom(browser, front, width):
    page = Watched(browser, front, width=width, touch=True).is_ready()
    tab = page.tab
    ends = "document.getElementById('plot').layout.xaxis.range"
    tab.evaluate(
        "document.querySelector('#plot .modebar-btn[data-title=\"Zoom out\"]').dispatchEvent(new Event('click'))"
    )
    zoomed = tab.evaluate(ends)
    for count in (1, 0):
        tab.touchscreen.tap(*min(centres(page, "#plot .scatterlayer .points path")))
        tab.wait_for_timeout(500)  # longer than a browser takes to add its mouse events
        assert tab.locator("tr.chosen").count() == count
        assert tab.evaluate(ends) == zoomed, "two clicks would reset it"
    assert page.wrong == []


def test_the_hint_says_what_a_finger_can_do(browser, front):
    for touch in (False, True):
        tab = Watched(browser, front, width=400, touch=touch).is_ready().tab
        said = {}
        for kind in ("scatter", "parallel"):
            tab.select_option("#kind", kind)
            said[kind] = tab.inner_text("#hint")
        if touch:  # nothing hovers, and a finger that drags scrolls the page
            assert "Tap one policy" in said["scatter"]
            assert "toolbar" in said["scatter"]
            assert said["parallel"] == "Tap one policy to read it, a second one to compare."
        else:
            assert "Drag to zoom" in said["scatter"]
            assert "Drag over an axis" in said["parallel"]


def test_the_value_of_the_bound_stays_beside_its_slider(browser, front):
    for width in (400, 640, 1280):
        tab = Watched(browser, front, width=width).is_ready().tab
        slider, value = (tab.locator(name).bounding_box() for name in ("#bound", "#bound-value"))
        assert abs(slider["y"] + slider["height"] / 2 - value["y"] - value["height"] / 2) < 4, width


def test_a_table_shows_that_it_goes_on(browser, front):
    """Pixels at the right edge of a table of which columns are out of view, and of one that is whole."""
    shaded = {}
    for width in (320, 1280):
        tab = Watched(browser, front, width=width).is_ready().tab
        tab.locator("tr.policy").first.click()
        wide = tab.locator("#detail .wide").first
        wide.scroll_into_view_if_needed()
        hidden = wide.evaluate("(one) => one.scrollWidth - one.clientWidth")
        box = wide.bounding_box()
        picture = tab.screenshot(clip={"x": box["x"] + box["width"] - 3, "y": box["y"] + 2, "width": 2, "height": 2})
        drawn = tab.evaluate(
            """async (data) => {
                const image = await createImageBitmap(new Blob([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))]));
                const pen = new OffscreenCanvas(2, 2).getContext("2d");
                pen.drawImage(image, 0, 0);
                return pen.getImageData(0, 0, 1, 1).data[0];
            }""",
            base64.b64encode(picture).decode(),
        )
        shaded[hidden > 0] = drawn
    assert shaded[True] < 240 < shaded[False]


def test_hover_labels_stay_in_a_narrow_page(browser, scored):
    page = Watched(browser, scored, width=400).is_ready()
    for centre in centres(page):
        page.tab.mouse.move(*centre)
        page.tab.wait_for_selector("#plot .hovertext")
        page.tab.wait_for_timeout(100)
        box = page.tab.locator("#plot .hovertext").first.bounding_box()
        plot = page.tab.locator("#plot").bounding_box()
        assert box["x"] >= plot["x"]
        assert box["x"] + box["width"] <= plot["x"] + plot["width"]


def test_what_is_left_out_is_pale_and_moves_no_axis(browser, front):
    page = Watched(browser, front, anchor="#bounded=helpful").is_ready()
    tab = page.tab
    ranges = "(({ xaxis, yaxis }) => [...xaxis.range, ...yaxis.range])(document.getElementById('plot')._fullLayout)"
    before, bars = tab.evaluate(ranges), tab.locator("#plot .errorbar").count()
    ids = tab.evaluate("[...document.querySelectorAll('tr.policy')].map((one) => one.dataset.id)")
    for change in (
        "const r = document.getElementById('bound'); r.value = 400; r.oninput()",
        f"location.hash = 'brush={ids[2]}'",
        f"location.hash = 'brush={ids[2]}&chosen={ids[0]}'",
        "document.getElementById('intervals').click()",
    ):
        tab.evaluate(change)
        playwright.expect(tab.locator("tr.out")).not_to_have_count(0)
        assert tab.evaluate(ranges) == before
    tab.evaluate("document.getElementById('intervals').click(); location.hash = 'brush=" + ".".join(ids[1:]) + "'")
    playwright.expect(tab.locator("tr.out")).to_have_count(1)
    tab.wait_for_timeout(200)
    assert tab.locator("#plot .errorbar").count() == bars, "with their intervals"
    drawn = tab.evaluate(
        "document.getElementById('plot').data.filter((one) => one.legendgroup)"
        ".map((one) => [one.mode, one.opacity, one.x.filter((x) => x !== null).length, Boolean(one.showlegend)])"
    )
    assert sorted(drawn) == sorted(
        [
            ["lines", FAINT, 2, False],
            ["lines", 1, 2, False],
            ["markers", FAINT, 1, False],
            ["markers", 1, 2, True],
        ]
    ), "the line to the point that is left out is pale, the legend is not"
    tab.select_option("#kind", "parallel")
    shown = "document.getElementById('plot').data.filter((one) => one.showlegend && one.legendgroup)"
    assert tab.evaluate(f"{shown}.map((one) => one.opacity)") == [1]
    assert page.wrong == []


def test_which_w_names_the_reference_and_the_csv_is_front_csv(browser, scored):
    page = Watched(browser, scored, anchor="#bounded=safe").is_ready()
    tab = page.tab
    whole = (scored.parent / "front.csv").read_bytes()
    assert page.saved("#csv") == whole
    tab.evaluate("const r = document.getElementById('bound'); r.value = 500; r.oninput()")
    assert tab.inner_text("#bound-count").endswith(": w = 0.1; the reference")
    left = page.saved("#csv").splitlines()
    assert 1 < len(left) < len(whole.splitlines())
    assert set(left) < set(whole.splitlines())
    tab.evaluate("const r = document.getElementById('bound'); r.value = 1000; r.oninput()")
    assert tab.inner_text("#bound-count").endswith(": the reference")


def test_both_runs_of_an_evaluated_policy_are_linked_and_a_missing_curve_is_said(browser, scored):
    page = Watched(browser, scored).is_ready()
    tab = page.tab
    tab.locator("tr.policy").first.click()
    tab.wait_for_selector("#detail .prompt")
    hrefs = tab.evaluate("[...document.querySelectorAll('#detail .facts a')].map((one) => one.href)")
    assert [href.rstrip("/").rpartition("and_of_its_data/")[2] for href in hrefs] == [
        "modpo/w%3D0.1", "evaluate/w%3D0.1", "modpo/w%3D0.1/adapter"
    ]  # fmt: skip
    assert tab.locator("#curve").count() == 1
    tab.locator("tr.policy", has_text="reference").click()
    tab.wait_for_selector("text=Paired difference")
    assert "reference, seed 0 has no such curve" in tab.inner_text("#detail")
    assert tab.evaluate("document.querySelectorAll('#curve .scatterlayer .trace').length") == 1
    tab.locator("#detail button", has_text="B alone").click()
    tab.wait_for_selector("text=No learning curve: the run recorded no steps of a training.")


@pytest.mark.parametrize("width", [400, 1280])
def test_many_parallel_axes_are_chosen_from_and_do_not_overlap(browser, tmp_path, width):
    names = [f"{word}_{number}" for number in range(9) for word in ("helpfulness", "repetition", "over_refusal")]
    samples = [("prompt", "answer", {name: index / 9 for index, name in enumerate(names)})]
    axes = {name: name for name in names}
    weights = dict.fromkeys(names, 1 / len(names))
    runs = [
        write_run(tmp_path / str(seed), w=0.5, seed=seed, samples=samples, axes=axes, weights=weights)
        for seed in range(3)
    ]
    path = write_front_page(collect(runs), tmp_path / "front.html", names=Names("a", "b"), exact=None, reference=None)
    page = Watched(browser, path, width=width).is_ready()
    tab = page.tab
    assert tab.input_value("#kind") == "parallel"
    assert tab.inner_text("#axes-count") == "axes: 7 of 27 metrics"
    tab.click("#shown-axes summary")
    for name in range(27):
        tab.locator("#axes input").nth(name).check()
    assert tab.inner_text("#axes-count") == "axes: 27 of 27 metrics"
    tab.click("#shown-axes summary")
    ticks = "[...document.querySelectorAll('#plot .xtick text')].map((one) => one.getBoundingClientRect().x).join()"
    before = None
    while (now := tab.evaluate(ticks)) != before:  # plotly.js resizes in its own time
        before = now
        tab.wait_for_timeout(500)
    for selector in ("#plot .xtick text", "#plot .annotation"):
        boxes = tab.locator(selector).evaluate_all("them => them.map((one) => one.getBoundingClientRect().toJSON())")
        boxes = [box for box in boxes if abs(box["y"] - boxes[0]["y"]) < 2]
        assert len(boxes) == 27
        ends = sorted((box["x"], box["x"] + box["width"]) for box in boxes)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(ends)), [selector, ends]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert page.wrong == []
