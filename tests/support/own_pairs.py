"""A tiny run on prompts alone: its model's own answers are sampled, scored by their length, and trained on."""

import json

from alignlab.data.worlds import toy

SMALL = (
    "dataset=prompts",
    "dataset.pairs.samples=3",
    "generator.max_new_tokens=40",
    "generator.samples=2",
    "scorers.better.kind=length",
    "scorers.safer.kind=length",
    "scorers.safer.unit=words",
    "trainer.save_steps=2",
    "trainer.logging_steps=1",
    "trainer.learning_rate=1.0e-3",
    "trainer.per_device_train_batch_size=8",
    "trainer.max_length=80",
    "peft.dropout=0.1",  # so that a resumed run must draw the same random numbers too
)


def on_prompts(base, folder, count):
    """Settings of a run on so many prompts of the toy, whose file is written into a folder."""
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in toy.all_prompts()[:count]))
    model = ("model=hf", f"model.path={base.path}", "model.prompt_template=user: {raw_prompt} assistant: ")
    return (*SMALL, f"dataset.path={file}", *model)
