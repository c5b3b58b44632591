"""``python -m attar``: the command line."""

import sys

from attar.cli import main

if __name__ == "__main__":
    sys.exit(main())
