"""`seq2seq`, and `python -m seq2seq`: the command line, and an end without a traceback while it is being loaded."""

from __future__ import annotations

import sys


def main() -> None:
    """Loads the command line and runs it. Ends with 130 where it is interrupted before that can see to it itself."""
    try:
        from seq2seq.cli import main as run
    except KeyboardInterrupt:
        print("seq2seq: interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
