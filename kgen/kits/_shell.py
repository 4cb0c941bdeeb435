"""What the kits' shell scripts share. POSIX sh; every script works in its own directory."""

from __future__ import annotations

from kgen.kits import Facts
from kgen.kits._text import fill

_HEAD = """\
#!/bin/sh
# kgen on @PRODUCT@: @CASE@
# @WHAT@
usage='@USAGE@'
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"
name='@NAME@'

die() {
    printf '%s: %s\\n' '@SCRIPT@' "$*" >&2
    exit 1
}

need() {
    command -v "$1" >/dev/null 2>&1 || die "there is no $1 in the PATH; $2"
}

case ${1:-} in
    -h | --help)
        echo "$usage"
        exit 0
        ;;
    -*) die "there is no option $1; $usage" ;;
esac
[ $# -le @MOST@ ] || die "too many words; $usage"
"""

#: Needs a function ``machine_runs`` in the script, which returns whether the machine still runs.
_WAIT = """
seconds=${KGEN_SECONDS:-@SECONDS@}
case $seconds in
    '' | *[!0-9]*) die "KGEN_SECONDS=$seconds is not a number of seconds" ;;
esac

# Keep the log of the run before.
put_old_log_away() {
    [ ! -e serial.txt ] || mv -f serial.txt serial-old.txt
}

has_ended() {
    [ -f serial.txt ] && LC_ALL=C grep -q '^kgen:[0-9][0-9]* end ' serial.txt
}

wait_for_end() {
    echo 'waiting for the end of the run; its log is serial.txt'
    begun=$(date +%s)
    heard=$begun
    size=0
    until has_ended; do
        if ! machine_runs; then
            sleep 1
            has_ended && break
            die 'the machine has ended before the run; judge the log so far: kgen judge serial.txt'
        fi
        now=$(date +%s)
        if [ $((now - begun)) -ge "$seconds" ]; then
            die "no end of the run in $seconds s (KGEN_SECONDS=N waits longer); the log so far: kgen judge serial.txt"
        fi
        before=$size
        size=0
        [ ! -f serial.txt ] || size=$(($(wc -c <serial.txt)))
        if [ "$size" -ne "$before" ]; then
            heard=$now
        elif [ -n "$heard" ] && [ $((now - heard)) -ge 60 ]; then
            heard='' # reported once
            what='serial.txt is empty: is its file the port that the kernel writes to?'
            [ "$size" -eq 0 ] || what='nothing has come for 60 s.'
            echo "@SCRIPT@: $what Is the machine still running?" >&2
        fi
        sleep 1
    done
    sleep 2 # for the rest of its last line and what follows it
    echo 'the run has ended; judge it with: kgen judge serial.txt'
}
"""


def script(
    facts: Facts,
    product: str,
    name: str,
    what: str,
    body: str,
    *,
    words: str = "",
    most: int = 0,
    root: bool = False,
    waits: bool = False,
) -> str:
    """Return a shell script: its head, the functions to wait with where it ``waits``, and ``body``.

    ``name`` is the script's file, ``what`` the comment that says what it does. ``words`` are its arguments as the usage
    has them, ``most`` is how many there may be; ``root`` is true where only root may run it.
    """
    usage = f"usage{', as root' if root else ''}: sh {name} {words}".rstrip()
    head = fill(
        _HEAD,
        product=product,
        case=facts.case,
        what=what,
        usage=usage,
        name=facts.name,
        script=name,
        most=most,
    )
    return head + (fill(_WAIT, seconds=facts.seconds, script=name) if waits else "") + body
