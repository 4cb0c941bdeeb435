"""``python -m kgen`` is the ``kgen`` command, and the installed program begins here as well."""

from __future__ import annotations

import sys

#: kgen.errors.INTERRUPTED and the exit code of KgenError: what is imported before ``run`` could be interrupted outside.
_INTERRUPTED, _FAILED = 130, 9


def run() -> None:
    """Run the command line. A Ctrl-C during its imports, and too little memory for them, end in one line and an exit
    code, as they do later.
    """
    try:
        from kgen.cli import main
    except KeyboardInterrupt:
        print("kgen: interrupted", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None
    except MemoryError:
        print("kgen: error: there is not enough memory to start; raise the limit (ulimit -v)", file=sys.stderr)
        raise SystemExit(_FAILED) from None
    main(prog_name="kgen")


if __name__ == "__main__":
    run()
