"""A judge that is killed: one process that imports everything once, and forks a fresh client for each attempt.

    python killed_judge.py URL

For each line `FOLDER URL WORKERS` on its input it forks, prints the child's process id, and on the next line lets the
child judge. When the child has ended it prints how: 0, or minus the signal's number.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run by its path, not by pytest

from alignlab.io.records import Records
from alignlab.judges import JudgeItem, load_judge
from support.judging import items_of, settings

ITEMS = items_of(40)
WORDINGS = ["direct", "contrast"]


def judge(folder: Path, url: str, workers: int) -> None:
    """One attempt: what is missing is judged, and the final file written."""
    config = settings(base_url=url, wordings=WORDINGS, workers=workers)
    with Records(folder / "verdicts.jsonl", [item.id for item in ITEMS]) as records:
        missing = set(records.missing())
        chosen = load_judge(config, cache=folder / "cache", folder=folder)
        chosen.verdicts([item for item in ITEMS if item.id in missing], lambda verdict: records.add(verdict.row()))
        records.finish()


def main() -> None:
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "w")
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    # Judges something else first, so that no child spends its life on imports and certificates.
    load_judge(settings(base_url=sys.argv[1]), cache=None).verdicts([JudgeItem("x", "garden shed", "a", "b")], print)
    for line in sys.stdin:
        folder, url, workers = line.split()
        ready, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.read(ready, 1)
            judge(Path(folder), url, int(workers))
            os._exit(0)
        print(child, file=answers, flush=True)
        sys.stdin.readline()
        os.write(go, b"x")
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    main()
