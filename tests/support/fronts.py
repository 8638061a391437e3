"""Small hand-written run folders of a front: what a page is made of, without any training."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.front.collect import collect
from alignlab.front.page import Names, write_front_page
from alignlab.stats import mean_interval

AXES = {"better": "helpful", "safer": "safe"}


def write_run(
    folder: Path,
    *,
    w: float | None,
    samples: Sequence[tuple[object, str, Mapping[str, float]]],
    seed: int = 0,
    algorithm: str = "modpo",
    kind: str = "toy",
    **changed: Any,
) -> Path:
    """A finished run that gave these samples: (prompt, response, scores).

    Args:
        folder: of the run.
        w: weight of the first objective; None for a policy without weights.
        samples: what the policy said.
        seed: of the run.
        algorithm: its name.
        kind: dataset.kind in config.json.
        **changed: fields of result.json.
    """
    folder.mkdir(parents=True)
    groups = [json.dumps(prompt) for prompt, _, _ in samples]
    names = list(samples[0][2])
    record = {
        "status": "done",
        "algorithm": algorithm,
        "model": "tiny",
        "dataset": "toy",
        "seed": seed,
        "w": w,
        "weights": None if w is None else {"better": w, "safer": round(1 - w, 9)},
        "beta": 1.0,
        "loss_type": "sigmoid",
        "axes": AXES,
        "metrics": {name: mean_interval([one[2][name] for one in samples], groups).as_record() for name in names},
        "artifacts": {"adapter": "adapter"},
        "seconds": {"total": 12.5},
        "error": None,
    }
    _write(folder / "result.json", [{**record, **changed}])
    _write(folder / "config.json", [{"w": w, "seed": seed, "dataset": {"kind": kind}}])
    rows = [
        {"id": f"{index:04}", "prompt": prompt, "response": text} for index, (prompt, text, _) in enumerate(samples)
    ]
    _write(folder / "generations.jsonl", rows)
    _write(folder / "scores.jsonl", [{"id": f"{index:04}", **one[2]} for index, one in enumerate(samples)])
    _write(folder / "metrics.jsonl", [{"step": step, "loss": 1 / step, "epoch": step / 9} for step in range(1, 10)])
    return folder


def _write(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_front(root: Path, *, prompts: int = 6, ws: Sequence[float] = (0.1, 0.5, 0.9), **changed: Any) -> list[Path]:
    """Runs whose scores follow w, two samples a prompt."""
    return [
        write_run(
            root / f"w={w}",
            w=w,
            samples=[
                (
                    f"prompt {p}",
                    f"answer {s} of w={w} to {p}",
                    {"helpful": 2 * w + p / 9 + s, "safe": 2 - w - p / 7, "kl": 0.1 + w / 3},
                )
                for p in range(prompts)
                for s in range(2)
            ],
            **changed,
        )
        for w in ws
    ]


def write_evaluated(root: Path, *, ws: Sequence[float] = (0.1, 0.9)) -> list[Path]:
    """Evaluations of adapters that other runs trained, and of the reference, as a scored front has them.

    Args:
        root: of the runs: `modpo/w=.../adapter`, `evaluate/w=...`, `evaluate/reference`.
        ws: of the policies.
    """
    samples = [(f"prompt {p}", "answer", {"helpful": p / 3, "safe": 1 - p / 5, "kl": 0.1}) for p in range(4)]
    found = []
    for w in ws:
        write_run(root / "modpo" / f"w={w}", w=w, samples=samples, seconds={"total": 40.0, "training": 30.0})
        (root / "modpo" / f"w={w}" / "adapter").mkdir()
        policy = {"algorithm": "modpo", "seed": 0, "adapter": f"../../modpo/w={w}/adapter"}
        changed = {"policy": policy, "artifacts": {}, "seconds": {"total": 7.0}}
        moved = [(prompt, text, {**one, "safe": one["safe"] - w}) for prompt, text, one in samples]
        found.append(write_run(root / "evaluate" / f"w={w}", w=w, samples=moved, algorithm="evaluate", **changed))
    changed = {"policy": {"algorithm": "reference", "seed": 0}, "beta": None, "loss_type": None, "artifacts": {}}
    folder = root / "evaluate" / "reference"
    found.append(write_run(folder, w=None, samples=samples, algorithm="evaluate", **changed))
    for folder in found:
        (folder / "metrics.jsonl").unlink()
    return found


def write_large_front(folder: Path, *, policies: int = 20, prompts: int = 200, words: int = 50) -> Path:
    """The page of a large front: four samples a prompt, of random words.

    Args:
        folder: for the runs and the page.
        policies: how many.
        prompts: of each.
        words: of a sample.
    """
    rng = random.Random(0)
    known = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(5000)]
    runs = []
    for number in range(policies):
        samples = [
            (
                f"prompt {prompt} {known[prompt]}",
                " ".join(rng.choices(known, k=words)),
                {"helpful": rng.random(), "safe": rng.random(), "kl": 0.1},
            )
            for prompt in range(prompts)
            for _ in range(4)
        ]
        runs.append(write_run(folder / f"{number}", w=number / policies, samples=samples))
    path = folder / "front.html"
    return write_front_page(collect(runs), path, names=Names("toy", "tiny"), exact=None, reference=None)
