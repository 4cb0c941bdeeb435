"""gdb's words, as its releases print them."""

from __future__ import annotations

import pytest

from kgen.machine.gdb_words import Refusal, is_gone, last_words, refusal

_LOOKUP = "no.such.host.invalid:1234: cannot resolve name: Name or service not known\n"


@pytest.mark.parametrize(
    ("message", "log", "why"),
    [
        ("no.such.host.invalid:1234: No such file or directory.", _LOOKUP, Refusal.NO_HOST),
        (_LOOKUP, "", Refusal.NO_HOST),
        ("/tmp/nothing: No such file or directory.", "", Refusal.NO_LISTENER),
        ("localhost:1: Connection refused.", "", Refusal.NO_LISTENER),
        ("could not connect: Connection timed out.", "", Refusal.NO_ROUTE),
        ("Ignoring packet error, continuing...: timed out", "", Refusal.SILENT),
        ("Remote 'g' packet reply is too long (expected 308 bytes, got 536 bytes): 00", "", Refusal.WIDER),
        ("Bogus trace status reply from target: x", "", Refusal.OTHER),
    ],
    ids=["13.1 host", "16.3 host", "path", "port", "route", "silent", "wider", "other"],
)
def test_why_gdb_did_not_attach(message: str, log: str, why: Refusal) -> None:
    assert refusal(message, log) is why


def test_the_end_of_a_connection() -> None:
    assert is_gone("Remote connection closed")
    assert is_gone("Remote communication error.  Target disconnected.: Connection reset by peer.")
    assert not is_gone("Cannot access memory at address 0x0")


def test_the_last_line_that_says_something() -> None:
    assert last_words(("warning: a", "gdb: cannot open it", "\0", " ")) == "gdb: cannot open it"
    assert last_words(("\0",)) == "", "gdb 16.3 and 18.1 of a machine that was killed"
    assert last_words(()) == ""
