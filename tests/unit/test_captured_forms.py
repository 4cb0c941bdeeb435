"""The forms in which tools leave a log (captured_forms): each is judged as the plain log is, or not at all."""

from __future__ import annotations

import binascii
import re

import pytest
from captured_forms import FORMS, KINDS, Form, in_base64
from click.testing import CliRunner
from recordings import load

from kgen.cli import main
from kgen.offline import repair
from kgen.offline.runs import from_capture, verdicts
from kgen.offline.serial_log import clean
from kgen.verdict.model import VerdictKind

GOOD, BAD, SUITE = load("tcg-atomic").log, load("kvm-lost").log, load("tcg-suite").log
ATOMIC, NOT_ATOMIC, INCONCLUSIVE = VerdictKind.ATOMIC, VerdictKind.NOT_ATOMIC, VerdictKind.INCONCLUSIVE
Judged = list[list[tuple[VerdictKind, str]]]


def judged(log: bytes) -> Judged:
    """Verdict and reason of each case of each run."""
    return [[(each.kind, each.reason) for each in verdicts(run)] for run in from_capture(log)]


PLAIN = {log: judged(log) for log in (GOOD, BAD, SUITE)}


def test_the_plain_logs_are_what_they_are_meant_to_be() -> None:
    assert [[kind for kind, _ in run] for run in PLAIN[GOOD] + PLAIN[BAD]] == [[ATOMIC], [NOT_ATOMIC]]
    assert len(PLAIN[SUITE][0]) > 1


def test_each_kind_has_three_forms() -> None:
    assert {kind for kind, forms in KINDS.items() if len(forms) < 3} == set()


@pytest.mark.parametrize("name", FORMS)
def test_each_form_is_judged_as_the_plain_log(name: str) -> None:
    for log in (GOOD, BAD, SUITE):
        assert FORMS[name](log) != log
        assert judged(FORMS[name](log)) == PLAIN[log]


@pytest.mark.parametrize("name", FORMS)
def test_an_altered_log_is_never_proof_in_any_form(name: str) -> None:
    """Another digit in a row of the table, which has no checksum of its own, and a native line less."""
    row = re.search(rb"counts:\t17\t([0-9]+)\t", GOOD)
    line = re.search(rb"kgen:6 [^\n]*\n", GOOD)
    assert row
    assert line
    other = GOOD.replace(row[0], b"counts:\t17\t%d\t" % (int(row[1]) + 1))
    for log in (other, GOOD.replace(row[0], b"counts:\t7\t" + row[1] + b"\t"), GOOD.replace(line[0], b"")):
        assert log != GOOD
        ((verdict,),) = judged(FORMS[name](log))
        assert verdict[0] is INCONCLUSIVE


@pytest.mark.parametrize("number", range(len(FORMS)))
def test_runs_of_two_forms_in_one_file(number: int) -> None:
    """A file is appended to; what one tool has done to a run is not what another one has done to the next."""
    forms = list(FORMS.values())
    one, two = forms[number], forms[(number * 7 + 1) % len(forms)]
    assert judged(one(BAD) + two(GOOD)) == PLAIN[BAD] + PLAIN[GOOD]
    assert judged(one(GOOD) + two(BAD)) == PLAIN[GOOD] + PLAIN[BAD]


@pytest.mark.parametrize("kind", KINDS)
def test_from_a_pipe(kind: str) -> None:
    form = next(iter(KINDS[kind].values()))
    for log, code in ((GOOD, 0), (BAD, NOT_ATOMIC.value)):
        result = CliRunner().invoke(main, ["judge", "-"], input=form(log))
        assert result.exit_code == code, result.output


@pytest.mark.parametrize("name", FORMS)
def test_a_bare_table_gets_no_help(name: str) -> None:
    """Without a checksum nothing proves a repair: whatever a form makes of a table alone is no other table."""
    table = b"counts:\tcount0\tcount1\tcount2\tcount0-count1+count2\r\ncounts:\t1\t1\t0\t0\r\ncounts:\t2\t1\t1\t0\r\n"
    for run in judged(FORMS[name](table)):
        assert [kind for kind, _ in run] in ([INCONCLUSIVE], [VerdictKind.ERROR])


# --- what is said about it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("prefix: stamps switched on", "something stands in front of "),
        ("web: twice", "lines had characters written as of web pages"),
        ("shown: vi's", "lines, such as '^M': it was left out"),
        ("words: 60", "lines were broken by a terminal or a mailer and were put together again"),
        ("inside: a command", "1 lines had other text in them, which was taken out"),
        ("line ends: blanks", "lines stood after another one and were separated"),
        ("JSON: nested", "lines were packed in JSON; the text was taken from 'a.message'"),
    ],
)
def test_what_was_undone_is_reported(name: str, words: str) -> None:
    notes = clean(FORMS[name](GOOD)).notes
    assert any(words in note for note in notes), notes


# --- what looks like the guest's is never left out -----------------------------------------------------------------


def numbered(log: bytes, number: int) -> bytes:
    match = re.search(rb"kgen:%d [^\r\n]*" % number, log)
    assert match
    return match[0]


def placed(line: bytes, beside: bytes) -> tuple[bytes, ...]:
    """In front of a whole line, behind it, and in its middle."""
    start, end = line[:20], line[20:]
    return beside + line, line + b" " + beside, start + beside + end, start + beside + b"\n" + end


SEVERAL_FORMS = ("prefix: GitHub", "JSON: kubectl", "shown: cat -A")


@pytest.mark.parametrize("beside", [b"counts:\t7\t7\t7\t-7 ", numbered(GOOD, 9) + b" "])
def test_a_whole_line_beside_another_is_never_left_out(beside: bytes) -> None:
    line = numbered(GOOD, 12)
    for new in placed(line, beside):
        for log in (GOOD, *(FORMS[name](GOOD) for name in SEVERAL_FORMS)):
            ((verdict,),) = judged(log.replace(line, new))
            assert (verdict[0] is INCONCLUSIVE) == (line in log)


@pytest.mark.parametrize("beside", [b"kgen:11 witness index=0 pha ", b"counts:\t7 and more "])
def test_a_part_of_a_line_beside_another_is_reported(beside: bytes) -> None:
    """The closing line's checksum may prove that the record is whole without it."""
    line = numbered(GOOD, 12)
    for new in placed(line, beside):
        for log in (GOOD.replace(line, new), *(FORMS[name](GOOD.replace(line, new)) for name in SEVERAL_FORMS)):
            (run,) = from_capture(log)
            (verdict,) = verdicts(run)
            told = any(
                "lines that are not the kernel's stand between its own (1, such as " in each for each in run.notes
            )
            assert verdict.kind is (ATOMIC if told else INCONCLUSIVE)


def test_a_line_in_another_text_of_an_object_is_not_left_out() -> None:
    log = FORMS["JSON: kubectl"](GOOD)
    assert judged(log.replace(b'"stdout", "log": "kgen:9 ', b'"x", "log": "kgen:9 ')) == PLAIN[GOOD]
    ((verdict,),) = judged(log.replace(b'"stdout", "log": "kgen:9 ', b'"%s", "log": "kgen:9 ' % numbered(GOOD, 12)))
    assert verdict[0] is INCONCLUSIVE


def test_a_line_that_was_repaired_is_one_that_was_printed() -> None:
    """No repair makes a line that the plain log does not have."""
    plain = set(clean(GOOD).text.split("\n"))
    for form in FORMS.values():
        natives = [line for line in clean(form(GOOD)).text.split("\n") if re.match(r"kgen:[0-9]+ [a-z]+ .*crc=", line)]
        assert set(natives) <= plain


def test_a_log_of_broken_lines_takes_no_longer_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line that no repair mends is tried in every way; after so many of them in fewer."""
    tries = 0
    undo = repair._natives

    def counted(text: str) -> list[tuple[int, int]]:
        nonlocal tries
        tries += 1
        return undo(text)

    monkeypatch.setattr(repair, "_natives", counted)
    monkeypatch.setattr(repair, "MAX_FAILURES", 10)
    broken = b"kgen:7 count phase=0 cpu=2 puts=0\\x09\ncrc=&amp;\n"
    clean(broken * 20)
    first, tries = tries, 0
    clean(broken * 400)
    assert tries < first + 400 * 20


# --- what cannot be undone is named --------------------------------------------------------------------------------


def hex_dump(log: bytes) -> bytes:
    """As xxd makes it."""
    rows = (log[at : at + 16] for at in range(0, len(log), 16))
    return "".join(f"{at * 16:08x}: {row.hex(' ', 2):<40} {row!r}\n" for at, row in enumerate(rows)).encode()


def uuencoded(log: bytes) -> bytes:
    lines = (binascii.b2a_uu(log[at : at + 45]) for at in range(0, len(log), 45))
    return b"begin 644 serial.txt\n" + b"".join(lines) + b"`\nend\n"


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (in_base64, "the log is encoded in base64, as mails are; decode it with base64 -d"),
        (hex_dump, "the log is a hexadecimal dump; decode it with xxd -r"),
        (uuencoded, "the log is uuencoded; decode it with uudecode"),
    ],
)
def test_an_encoding_of_the_whole_is_named(form: Form, words: str) -> None:
    for log in (GOOD, BAD):
        ((verdict,),) = judged(form(log))
        assert verdict[0] is VerdictKind.ERROR
        assert words in verdict[1]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"3", b"***", "the CI system has masked parts of lines"),
        (b"rounds", b"[MASKED]", "the CI system has masked parts of lines"),
        (b"=0 torn", b"...\r\n", "lines were cut off and end in dots; capture the serial port to a file"),
    ],
)
def test_what_was_taken_out_of_lines_is_named(old: bytes, new: bytes, words: str) -> None:
    for log in (GOOD, BAD):
        changed = re.sub(rb"(?m)^(kgen:[0-9]+ result .*?)%s.*$" % old, rb"\1" + new, log)
        assert changed != log
        for run in from_capture(changed):
            (verdict,) = verdicts(run)
            assert verdict.kind is not ATOMIC
            assert any(note.startswith(words) for note in verdict.notes), verdict.notes
    for log in (GOOD, BAD):
        assert not any(words in note for note in verdicts(from_capture(log)[0])[0].notes)
