"""A chat template that loops, allocates or writes without end is refused by name, and the next one is rendered."""

import time
from pathlib import Path

import pytest

from alignlab.data.records import Turn
from alignlab.models import render_worker, rendering
from alignlab.models.rendering import Conversation, TemplateRenderer, missing_turn

ASK = [Conversation((Turn("user", "How do I bake?"),), ask=True)]
PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
TRAP = "{% if 'trap' in messages[-1].content %}{TRAP}{% endif %}" + PLAIN


def trapped(trap):
    """What a template says of a harmless request, of one that springs its trap, and of a harmless one after it."""
    renderer = TemplateRenderer(TRAP.replace("{TRAP}", trap), {})
    (before,) = renderer.render_all(ASK)
    (sprung,) = renderer.render_all([Conversation((Turn("user", "a trap"),), ask=True)])
    (after,) = renderer.render_all(ASK)
    assert before.text == after.text == "<user>How do I bake?"
    return sprung


@pytest.mark.parametrize(
    ("trap", "said"),
    [
        ("{% set x = 'a' * 3000000000 %}", "it needs more than 1 GiB of memory"),
        ("{% for a in range(99999) %}{{ 'abcdefghij' * 9 }}{% endfor %}", "it writes over"),
        ("{{ raise_exception('no such thing') }}", "no such thing"),
    ],
    ids=["memory", "output", "refuses"],
)
def test_a_hostile_template_costs_one_line(trap, said):
    found = trapped(trap)
    assert said in found.error
    assert "\n" not in found.error


def test_an_endless_loop_is_ended(monkeypatch, tmp_path):
    worker = tmp_path / "render_worker.py"
    source = Path(render_worker.__file__).read_text().replace("MAX_SECONDS = 10.0", "MAX_SECONDS = 0.3")
    worker.write_text(source)
    monkeypatch.setattr(rendering, "__file__", str(tmp_path / "rendering.py"))
    start = time.process_time()
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    found = trapped(loop)
    assert "for one conversation" in found.error
    assert time.process_time() - start < 5, "it is not this process that loops"


def test_content_is_given_as_parts_where_a_template_reads_parts():
    parts = "{% for m in messages %}{% for p in m.content if p.text is defined %}{{ p.text }}{% endfor %}{% endfor %}"
    (found,) = TemplateRenderer(parts, {}).render_all(ASK)
    assert found.text == "How do I bake?"


def test_a_template_that_writes_a_list_of_parts_is_refused():
    """It reads the user's content as parts and writes the system's as it is."""
    user = "{% for p in m.content if p.text is defined %}{{ p.text }}{% endfor %}"
    mixed = (
        "{% for m in messages %}{% if m.role == 'user' %}" + user + "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    talk = Conversation((Turn("system", "Be kind."), *ASK[0].turns), ask=True)
    asked, refused = TemplateRenderer(mixed, {}).render_all([*ASK, talk])
    assert asked.text == "How do I bake?"
    assert "the content of some roles as a list of parts and of others as text" in refused.error


def test_a_dropped_turn_is_seen():
    turns = (Turn("system", "Be kind."), Turn("user", "How do I bake?"))
    assert missing_turn("<user>How do I bake?", turns) == turns[0]
    assert missing_turn("<system>Be kind.<user>How do I\nbake?", turns) is None
