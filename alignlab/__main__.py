"""`python -m alignlab`."""

import sys

from alignlab.cli import main

if __name__ == "__main__":
    sys.exit(main())
