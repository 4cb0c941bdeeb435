"""Written beside kernel.elf by 'kgen build': gdb runs it when it loads that file. It adds kgen's commands to gdb.

gdb does so only for files that were declared safe before it reads the kernel:

    gdb -iex "add-auto-load-safe-path $PWD/kernel.elf-gdb.py" kernel.elf

It contains no path: every machine builds the same bytes. It looks for kgen in this order: the script that
KGEN_GDB_SCRIPT names, the checkout below which the kernel was built, the program 'kgen' in the PATH.
"""

import os
import runpy
import shutil
import subprocess
import sys

import gdb

_SECONDS = 20
_NOT_FOUND = (
    "kgen: its commands were not found: let KGEN_GDB_SCRIPT name the gdb_scripts/kgen.py of a checkout or an installed "
    "kgen, or 'source' that file"
)


def _changeable(checkout):
    """Return what of a checkout another user may change, "" where nothing: its commands are then not run."""
    if not hasattr(os, "getuid"):
        return ""
    parts = ("", "gdb_scripts", "gdb_scripts/kgen.py", "kgen", "kgen/__init__.py", "kgen/gdbside")
    for path in (os.path.join(checkout, part) if part else checkout for part in parts):
        try:
            found = os.stat(path)
        except OSError:
            return path
        # members of its group are other users as well
        if found.st_uid not in (0, os.getuid()) or found.st_mode & 0o022:
            return path
    return ""


def _script():
    named = os.environ.get("KGEN_GDB_SCRIPT")
    if named:
        return named
    objfile = gdb.current_objfile()
    if objfile is not None and objfile.filename:
        # build/CASE/kernel.elf in a checkout
        above = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(objfile.filename))))
        near = os.path.join(above, "gdb_scripts", "kgen.py")
        if os.path.isfile(near):
            changeable = _changeable(above)
            if not changeable:
                return near
            print(f"kgen: {near!r} is not run, because another user or a group may change {changeable!r}")
    program = shutil.which("kgen")
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, "gdb", "--script"], stdout=subprocess.PIPE, timeout=_SECONDS, text=True, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _say(line):
    """Print what is missing, now and at every command of kgen's, in place of gdb's "Undefined command"."""

    class Missing(gdb.Command):
        """kgen's commands were not found; each prints why."""

        def __init__(self):
            super().__init__("kgen", gdb.COMMAND_DATA)

        def invoke(self, argument, from_tty):
            print(line)

    print(line)
    Missing()


if "kgen.gdbside.register" not in sys.modules:
    _found = _script()
    if _found:
        try:
            runpy.run_path(_found)
        except Exception as error:
            _say(f"kgen: {_found} could not be run: {error}")
    else:
        _say(_NOT_FOUND)
