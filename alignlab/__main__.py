"""`python -m alignlab`."""

import sys


def run() -> int:
    """The command's exit code; Ctrl-C while modules are imported or settings are checked ends without a traceback."""
    try:
        from alignlab.cli import main

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(run())
