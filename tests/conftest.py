"""Shared fixtures: a tiny random base model, made in memory."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models lose more to thread hand-overs than threads give them
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

TEMPLATE = "user: {raw_prompt} assistant: "


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A random Llama over the toy's words, saved and loaded as any base model is."""
    from alignlab.data.worlds import toy
    from alignlab.models.base import load_base
    from alignlab.models.scratch import word_tokenizer
    from support.checkpoints import model_settings, save_checkpoint

    folder = tmp_path_factory.mktemp("base")
    tokenizer = word_tokenizer([*toy.VOCABULARY, "user:", "assistant:"])
    save_checkpoint(folder, tokenizer, vocab_size=99, max_position_embeddings=128)
    return load_base(model_settings(folder, TEMPLATE), folder=None, device="cpu")


@pytest.fixture(scope="session")
def encoded_rows(base):
    """Responses of different lengths to different prompts, as tokens."""
    import random

    from alignlab.data.worlds import toy

    rng = random.Random(0)
    return [base.encoder.encode(prompt, toy.demonstration(prompt, rng)) for prompt in toy.all_prompts()[:24]]


LONGEST = ("launchers", "jobs", "benchmarks")
"""Folders whose files take minutes, the longest first."""


def pytest_collection_modifyitems(items):
    """Long files first, so that no worker is left alone with one at the end; `make test` keeps this order."""
    _leave_out_long(items)
    order = {name: index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.parent.name, len(LONGEST)))


LONG = (
    "benchmarks/test_benchmarks.py::test_the_sweep_computes_reference_and_margin_once",
    "benchmarks/test_benchmarks.py::test_training_is_the_same_on_both_sides",
    "jobs/test_course_correction.py::test_a_killed_run_goes_on",
    "jobs/test_processes.py::test_processes_end_with_the_one_that_started_them[15]",
    "jobs/test_processes.py::test_two_processes_that_were_killed_go_on_where_they_stopped[classifier]",
    "pages/test_in_browser.py::test_a_large_front_opens_in_two_seconds",
    "jobs/test_simplex.py",
    "jobs/test_tracked_sweep.py",
    "jobs/test_killed_anywhere.py::test_killed_and_run_again_long_work_leaves_the_same",
    "jobs/test_killed_methods.py",
    "jobs/test_full_disk.py",
    "jobs/test_killed_at_random.py",
    "jobs/test_decoding.py::test_mixtures_by_token_and_by_response_killed_and_run_again",
    "jobs/test_rounds.py::test_killed_in_every_part_of_a_round_it_ends_the_same",
    "test_packaging.py::test_the_installed_command_trains",
)
"""Tests that take half a minute and more each: `make everything` runs them too."""


def _leave_out_long(items):
    if os.environ.get("ALIGNLAB_ALL"):
        return
    for item in items:
        if any(name in item.nodeid for name in LONG):
            item.add_marker(pytest.mark.skip(reason="takes long; make everything runs it"))
