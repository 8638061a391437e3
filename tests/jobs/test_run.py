"""Loading a job leaves the collector its work."""

import gc
import weakref

from alignlab.jobs.run import load_job


class Model:
    """Stands for what a job leaves in a circle of references, as trainers do."""

    def __init__(self):
        self.itself = self


def collected_after(between):
    """Whether a circle that was dropped before `between` is gone after a collection."""
    gc.collect()
    gc.disable()  # or it might go by itself
    try:
        left = weakref.ref(Model())
        between()
        gc.collect()
        return left() is None
    finally:
        gc.enable()


def test_what_one_job_left_is_collected_after_the_next_is_loaded():
    load_job("dpo")
    assert collected_after(lambda: load_job("modpo"))


def test_freezing_at_every_load_would_keep_it():
    """Control."""
    assert not collected_after(gc.freeze)
    gc.unfreeze()
    gc.collect()
