"""``python -m attar``: the command line."""

import sys

from attar._src.cli import main

if __name__ == "__main__":
    sys.exit(main())
