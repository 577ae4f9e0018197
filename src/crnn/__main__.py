"""The command ``crnn``, also as ``python -m crnn``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; ends the process with 0, 2 (wrong input or usage), or 130 (stopped by Ctrl-C)."""
    try:
        from crnn.cli import app  # takes a moment, and Ctrl-C may come already here

        app(prog_name="crnn")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
