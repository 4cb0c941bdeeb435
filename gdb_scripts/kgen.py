"""Add kgen's commands to gdb: ``gdb -x gdb_scripts/kgen.py kernel.elf``, then ``help kgen``.

gdb has a Python of its own. kgen is loaded from the checkout or package that contains this file, and that Python's path
does not change.
"""

import importlib
import importlib.util
import os
import sys


def _load(here):
    if sys.version_info < (3, 10):  # noqa: UP036 - it runs in whatever Python a gdb has
        return "this gdb's Python is older than 3.10"
    above = os.path.dirname(os.path.dirname(os.path.realpath(here)))
    # beside the package in a checkout, inside it once installed
    for package in (os.path.join(above, "kgen"), above):
        start = os.path.join(package, "__init__.py")
        if os.path.isfile(start) and os.path.isdir(os.path.join(package, "gdbside")):
            break
    else:
        return "kgen's package is not beside gdb_scripts; source the kgen.py of a checkout or an installed kgen"
    for name in [name for name in sys.modules if name == "kgen" or name.startswith("kgen.")]:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location("kgen", start, submodule_search_locations=[package])
    module = importlib.util.module_from_spec(spec)
    sys.modules["kgen"] = module
    spec.loader.exec_module(module)
    importlib.import_module("kgen.gdbside.register").register()
    return ""


def _stand_in(line):
    """Say what is missing at every command of kgen's, in place of gdb's "Undefined command"."""
    import gdb

    class Missing(gdb.Command):
        """kgen's commands could not be loaded; each prints why."""

        def __init__(self):
            super().__init__("kgen", gdb.COMMAND_DATA)

        def invoke(self, argument, from_tty):
            print(line)

    Missing()


try:
    _problem = _load(__file__)
except Exception as error:
    _problem = f"{type(error).__name__}: {error}"
if _problem:
    _line = "kgen: the commands could not be loaded: " + _problem
    print(_line)
    _stand_in(_line)
