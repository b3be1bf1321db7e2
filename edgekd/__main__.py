"""`python -m edgekd`."""

import sys
from pathlib import Path

# Python has put the current folder, which may be a data set with a `typer.py` in it, first on the path. It goes before
# anything else is imported, unless it is where the package lies.
if not sys.flags.safe_path and sys.path and Path(sys.path[0]).resolve() != Path(__file__).resolve().parents[1]:
    del sys.path[0]

from edgekd.cli.app import main

if __name__ == "__main__":
    main()
