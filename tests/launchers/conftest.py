"""The helper that runs the real command lies with the tests of the jobs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))
