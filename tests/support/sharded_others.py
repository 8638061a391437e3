"""What test_sharded_others trains, on one process, and on two that share the weights out (FSDP2), on a CPU."""

import copy
import dataclasses
import json
import os
from contextlib import nullcontext, suppress
from unittest.mock import patch

import torch
from accelerate.state import AcceleratorState
from datasets import Dataset

from alignlab.config.recipe import TrackerSettings, TrainingRecipe
from alignlab.training import classifier, sft
from alignlab.training.classifier import NewClassifier, classifier_here
from alignlab.training.cost import CHOSEN_SAFE, REJECTED_SAFE
from alignlab.training.sft import sft_here
from support.checkpoints import model_settings
from support.sharded import ONE, PEFT, RECIPE, Shared, Watch, pretend_to_have_gpus

TEMPLATE = "user: {raw_prompt} assistant: "
NAMES = ("sft", "classifier", "cost", "whole")
TRAINER = dataclasses.replace(RECIPE, per_device_train_batch_size=2, gradient_accumulation_steps=4, max_steps=4)


def rows_of(name, encoded):
    """The table of a kind; of an odd number of rows, which no batch divides."""
    if name == "sft":
        ids = [row.prompt_ids + row.response_ids for row in encoded[:11]]
        labels = [[-100] * len(row.prompt_ids) + row.response_ids for row in encoded[:11]]
        return Dataset.from_dict({"input_ids": ids, "labels": labels})
    texts = [row.prompt_ids + row.response_ids for row in encoded[:22]]
    table = {"chosen_ids": texts[:11], "rejected_ids": texts[11:]}
    if name == "cost":
        table |= {CHOSEN_SAFE: [True, False] * 5 + [True], REJECTED_SAFE: [False] * 11}
    return Dataset.from_dict(table)


def train(folder, name, base, encoded, watch=None, *, hardware=ONE):
    """Four steps of eight rows; returns what was watched."""
    watch, parts = watch or Watch(), hardware.world_size
    trainer = dataclasses.replace(TRAINER, gradient_accumulation_steps=4 // parts)
    tracker = TrackerSettings("local", "p", None, [], "g", "n", {})
    recipe = TrainingRecipe(trainer, PEFT, hardware, 0, tracker, model_settings(base.path, TEMPLATE))
    watched = {"tracking": lambda *_: nullcontext(watch)}
    with patch.multiple(sft, **watched), patch.multiple(classifier, **watched):
        if name == "sft":
            sft_here(recipe, copy.deepcopy(base), rows_of(name, encoded), folder)
        else:
            new = NewClassifier(base.path, None, "float32", name == "whole", "reward")
            classifier_here(recipe, rows_of(name, encoded), new, folder)
    return watch


def train_shared(folder, name, base, encoded, watch=None, *, bf16=False):
    """The same with another process."""
    AcceleratorState._reset_state()
    return train(folder, name, base, encoded, watch, hardware=Shared("cpu", 2, 1, bf16=bf16, fsdp=True))


def work(rank, folder, port, base, encoded):
    """One process: every kind; each is also broken off and resumed, and goes on with what a single process began."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)  # threads do not outlive a fork
    pretend_to_have_gpus()
    told = {}
    for name in NAMES:
        told[name] = vars(train_shared(folder / name, name, base, encoded))
        with suppress(KeyboardInterrupt):
            train_shared(folder / f"{name} broken", name, base, encoded, Watch(break_at=3))
        told[f"{name} broken"] = vars(train_shared(folder / f"{name} broken", name, base, encoded))
        train_shared(folder / f"{name} begun by one", name, base, encoded)
        told[f"{name} half"] = vars(train_shared(folder / f"{name} half", name, base, encoded, bf16=True))
    if rank == 0:
        (folder / "told.json").write_text(json.dumps(told))
