"""``python -m kgen`` is the ``kgen`` command, and the installed program begins here as well."""

from __future__ import annotations

import sys

from kgen.errors import INTERRUPTED


def run() -> None:
    """Run the command line. A Ctrl-C during its imports ends in the same line and exit code as one that comes later."""
    try:
        from kgen.cli import main
    except KeyboardInterrupt:
        print("kgen: interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    main(prog_name="kgen")


if __name__ == "__main__":
    run()
