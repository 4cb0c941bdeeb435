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


def _trusted(path):
    """Return whether a script and its directory belong to this user or to root: another user's script is not run."""
    owners = (0, os.getuid()) if hasattr(os, "getuid") else ()
    try:
        found = [os.stat(each) for each in (path, os.path.dirname(path))]
    except OSError:
        return False
    return all(not owners or (each.st_uid in owners and not each.st_mode & 0o002) for each in found)


def _script():
    named = os.environ.get("KGEN_GDB_SCRIPT")
    if named:
        return named
    objfile = gdb.current_objfile()
    if objfile is not None and objfile.filename:
        # build/CASE/kernel.elf in a checkout
        above = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(objfile.filename))))
        near = os.path.join(above, "gdb_scripts", "kgen.py")
        if os.path.isfile(near) and _trusted(near):
            return near
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


if "kgen.gdbside.register" not in sys.modules:
    _found = _script()
    if _found:
        try:
            runpy.run_path(_found)
        except Exception as error:
            print(f"kgen: {_found} could not be run: {error}")
    else:
        print(_NOT_FOUND)
