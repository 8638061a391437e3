"""The picture and the page: what is in them, and what hostile text in them cannot do."""

import numpy as np
import pytest

from alignlab.course_correction.page import MOST_TRANSCRIPTS, Transcript, write_page
from alignlab.course_correction.picture import corr_figure
from alignlab.course_correction.statistics import Scored, corr_curve
from alignlab.front.figures import save_figure
from alignlab.pages import visible
from support.pages import HOSTILE, Parsed, check_safe


def curve(share=0.5):
    rng = np.random.default_rng(0)
    rows = [Scored(str(n), str(n), k, 0, bool(rng.random() < share)) for n in range(30) for k in (10, 20, 30)]
    return corr_curve(rows, ks=(10, 20, 30))


def transcript(number, text="a plain text"):
    return Transcript(f"{number:04d}", 10, text, text, text, (True, False, None)[number % 3], text)


def page(path, texts, **more):
    items = [transcript(number, text) for number, text in enumerate(texts)]
    label = texts[0]
    return write_page(path, title=label, curves={label: curve()}, transcripts=items, facts={label: label}, **more)


def test_hostile_text_stays_text(tmp_path):
    found = check_safe(page(tmp_path / "page.html", HOSTILE, warning=HOSTILE[0]))
    assert {tag for tag, _ in found.tags} <= {
        "html", "head", "meta", "title", "style", "body", "header", "nav", "main", "section", "h1", "h2", "p", "div",
        "dl", "dt", "dd", "table", "thead", "tbody", "tr", "td", "th", "img", "details", "summary", "span", "code",
        "pre", "strong",
    }  # fmt: skip
    text = "".join(found.texts)
    assert "<script>alert(1)</script>" in text
    assert not set("\x00\x07\x08\x1b\u202e\u2066\u2069") & set((tmp_path / "page.html").read_text())
    assert "\\u202eturned" in text


def test_what_is_escaped_would_act(tmp_path):
    """Control: the same check sees a script where a text is not escaped."""
    path = page(tmp_path / "page.html", HOSTILE)
    path.write_text(path.read_text().replace("&lt;script&gt;", "<script>"))
    with pytest.raises(AssertionError):
        check_safe(path)


def test_texts_are_folded(tmp_path):
    path = page(tmp_path / "page.html", ["a secret text"])
    body = path.read_text()
    assert all("open" not in attributes for tag, attributes in Parsed(path).tags if tag == "details")
    before = body[: body.index("<h2>Transcripts")]
    assert before.count("a secret text") == body.count("a secret text", 0, body.index("<h2>Transcripts"))
    assert body.index("<details>") < body.rindex("a secret text")


def test_a_page_takes_what_a_browser_can_open(tmp_path):
    path = page(tmp_path / "page.html", [f"text {number}" for number in range(MOST_TRANSCRIPTS + 50)])
    shown = [1 for tag, _ in Parsed(path).tags if tag == "code"]
    assert len(shown) == MOST_TRANSCRIPTS
    assert f"{MOST_TRANSCRIPTS} of {MOST_TRANSCRIPTS + 50}" in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


def test_unknown_values_are_named(tmp_path):
    nothing = corr_curve([Scored("a", "a", 10, 0, None)], ks=(10,))
    path = write_page(tmp_path / "page.html", title="t", curves={"x": nothing}, transcripts=[], facts={})
    assert "unknown" in path.read_text()


def test_the_picture_shows_every_curve(tmp_path):
    figure = corr_figure({"before": curve(0.1), "after": curve(0.8)}, controls={"after": curve(0.05)})
    (panel,) = figure.axes
    labels = [line.get_label() for line in panel.get_lines()]
    assert [label.split(" (")[0] for label in labels] == ["before", "after", "after: harmless prefixes"]
    assert len(panel.collections) == 3  # a band each
    assert "k:" in panel.get_xlabel()
    for line in panel.get_lines()[:1]:
        assert list(line.get_ydata()) == curve(0.1).corr
    assert save_figure(corr_figure({"x": curve()}), tmp_path / "corr.png").stat().st_size > 5000


def test_the_picture_refuses_what_it_cannot_draw(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        corr_figure({})
    with pytest.raises(ValueError, match="must end in"):
        save_figure(corr_figure({"x": curve()}), tmp_path / "corr.gif")


def test_visible_keeps_lines_and_other_scripts():
    assert visible("ein Wort\n\tçüñ 漢字") == "ein Wort\n\tçüñ 漢字"
    assert visible("\ufeff") == "\\ufeff"
