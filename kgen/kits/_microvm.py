"""What the kits for virtual machine monitors without firmware share: one process of the user's, which starts the kernel
itself and has no screen."""

from __future__ import annotations

from collections.abc import Mapping

from kgen.kits import Facts, _shell
from kgen.kits._text import fill

#: The scripts' beginning: this folder's machine, and whether its process still runs. Another process may have its
#: number by now: the machine's has its name among its words.
_MACHINE = """
need @PROGRAM@ '@HINT@'
alive() {
    [ -f machine-made.txt ] && tr '\\0' ' ' <"/proc/$(cat machine-made.txt)/cmdline" 2>/dev/null | grep -q -e "$name"
}
"""

_RUN = """
if alive; then
    die 'this folder has its machine already; end it with: sh stop.sh'
fi
rm -f @SOCKET@ machine-made.txt
put_old_log_away
@COMMAND@ &
machine=$!
echo "$machine" >machine-made.txt

machine_runs() {
    kill -0 "$machine" 2>/dev/null
}

wait_for_end
"""

_STOP = """
[ -f machine-made.txt ] || die 'this folder has no machine'
if alive; then
    kill "$(cat machine-made.txt)"
    tries=20
    while alive; do
        [ "$tries" -gt 0 ] || die "the machine $name does not end"
        sleep 1
        tries=$((tries - 1))
    done
fi
rm -f @SOCKET@ machine-made.txt
"""


#: For the README.
START = ("Start", "sh run.sh, as a user who may use /dev/kvm. There is no screen.")
DEBUGGER = ("Debugger", "none; its memory can be judged with the log: NOTES.txt.")


def scripts(facts: Facts, product: str, *, program: str, hint: str, command: str, socket: str) -> Mapping[str, str]:
    """Return run.sh and stop.sh. ``command`` starts the machine and has ``$name`` among its words, ``hint`` says what
    to do where there is no ``program``, ``socket`` is the file of its API, as a word of the shell."""
    machine = fill(_MACHINE, program=program, hint=hint)
    return {
        "run.sh": _shell.script(
            facts,
            product,
            "run.sh",
            "Starts the machine and waits for the end of its run.",
            machine + fill(_RUN, command=command, socket=socket),
            waits=True,
        ),
        "stop.sh": _shell.script(facts, product, "stop.sh", "Ends the machine.", machine + fill(_STOP, socket=socket)),
    }
