"""The forms in which tools leave a log: functions from the guest's bytes to a file's, by kind."""

from __future__ import annotations

import base64
import html
import json
import quopri
import re
import textwrap
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

Form = Callable[[bytes], bytes]
_BEGAN = datetime(2026, 5, 3, 23, 59, 50, 1)


def lines_of(log: bytes) -> list[str]:
    """The guest's lines, without their ends."""
    return log.decode("latin-1").replace("\r", "").split("\n")[:-1]


def text_of(lines: Iterable[str]) -> bytes:
    """A text file of these lines."""
    return "".join(f"{line}\n" for line in lines).encode()


def each(change: Callable[[int, str], str]) -> Form:
    """A change of each line, by its number."""
    return lambda log: text_of(change(at, line) for at, line in enumerate(lines_of(log)))


def stamped(front: Callable[[int], str]) -> Form:
    """Something in front of each line."""
    return each(lambda at, line: front(at) + line)


def moment(at: int) -> datetime:
    return _BEGAN + timedelta(seconds=at, microseconds=at * 7919)


def cut(width: int) -> Form:
    """As a terminal of that width shows it."""
    return lambda log: text_of(
        line[at : at + width] for line in log.decode().splitlines() for at in range(0, len(line), width)
    )


def filled(width: int, front: str = "", *, hard: bool = False) -> Form:
    """As a mailer breaks lines at blanks; with ``hard`` also words that are longer than a line."""

    def change(log: bytes) -> bytes:
        made: list[str] = []
        for line in lines_of(log):
            pieces = textwrap.wrap(
                line, width, break_long_words=hard, break_on_hyphens=False, expand_tabs=False, replace_whitespace=False
            )
            made += [front + piece for piece in pieces or [line]]
        return text_of(made)

    return change


def after(*forms: Form) -> Form:
    """One after the other."""

    def change(log: bytes) -> bytes:
        for form in forms:
            log = form(log)
        return log

    return change


def packed(change: Callable[[int, str], object]) -> Form:
    """A JSON value for each line, which gets it with its end."""
    return lambda log: text_of(json.dumps(change(at, f"{line}\r\n")) for at, line in enumerate(lines_of(log)))


def halves(log: bytes) -> list[tuple[str, bool]]:
    """Lines of which every third comes in two parts; whether the part ends its line."""
    made = []
    for at, line in enumerate(lines_of(log)):
        middle = len(line) // 2
        made += [(line[:middle], False), (line[middle:], True)] if at % 3 == 0 else [(line, True)]
    return made


def lava(log: bytes) -> bytes:
    """A job's log: the device's lines, and LAVA's own about them."""
    made = []
    for at, line in enumerate(lines_of(log)):
        stamp = moment(at).isoformat()
        message = json.dumps({"dt": stamp, "lvl": "target", "msg": line})
        made.append(f"- {message}")
        if line.startswith("kgen:0 "):
            made.append("- " + json.dumps({"dt": stamp, "lvl": "debug", "msg": f"Matched prompt #0: {line[:11]}"}))
            made.append("- " + json.dumps({"dt": stamp, "lvl": "results", "msg": {"case": "boot", "result": "pass"}}))
    return text_of(made)


def cast(log: bytes) -> bytes:
    """asciinema's recording: the output in pieces of any length."""
    text = log.decode()
    head = [json.dumps({"version": 2, "width": 80, "height": 24})]
    return text_of(head + [json.dumps([at / 100, "o", text[at : at + 61]]) for at in range(0, len(text), 61)])


def partial(mark: Callable[[int, bool, bool], str]) -> Form:
    """Lines in parts, what stands in front of each by its number, whether it goes on another's, whether it ends."""

    def change(log: bytes) -> bytes:
        goes_on = False
        made = []
        for at, (part, ends) in enumerate(halves(log)):
            made.append(mark(at, goes_on, ends) + part)
            goes_on = not ends
        return text_of(made)

    return change


def inside(number: int, text: str, at: int = 20) -> Form:
    """Something else in the middle of the native line of that number."""
    return each(lambda _, line: line[:at] + text + line[at:] if line.startswith(f"kgen:{number} ") else line)


def yaml_quoted(line: str) -> str:
    return "'" + line.replace("'", "''") + "'"


def block_yaml(log: bytes) -> bytes:
    return text_of(
        part
        for at, line in enumerate(lines_of(log))
        for part in (f"- dt: '{moment(at).isoformat()}'", "  lvl: target", f"  msg: {yaml_quoted(line)}")
    )


def entities(line: str) -> str:
    return html.escape(line).replace("=", "&#61;").replace("\t", "&#9;")


def spaces(log: bytes) -> bytes:
    """As a web page keeps blanks: every second one does not break."""
    return "".join(f"{line.replace(' ', chr(0xA0))}\n" for line in lines_of(log)).encode()


def typographic(log: bytes) -> bytes:
    text = re.sub(r'"([^"]*)"', "\u201c\\1\u201d", log.decode())
    return text.encode()


def shown(line: str) -> str:
    """Control characters as cat -A shows them."""
    return line.replace("\t", "^I") + "^M$"


def qp(log: bytes) -> bytes:
    return b"Content-Transfer-Encoding: quoted-printable\n\n" + quopri.encodestring(log.replace(b"\r", b""))


#: Kind by kind; none of these is a file of ../shared/cases.
KINDS: dict[str, dict[str, Form]] = {
    "prefix": {
        "CRI": partial(lambda at, on, ends: f"{moment(at).isoformat()}Z stdout {'F' if ends else 'P'} "),
        "GitLab, in parts": partial(lambda at, on, ends: f"{moment(at).isoformat()}Z 01O{'+' if on else ' '}"),
        "GitHub": stamped(lambda at: f"{moment(at).isoformat()}3Z "),
        "dmesg's clock": stamped(lambda at: f"[{at * 9.7:12.6f}] "),
        "a stamp that grows": stamped(lambda at: f"{at * 20}: "),
        "a name that changes": stamped(lambda at: f"{'qemu' if at % 3 else 'console'}[{at}]: "),
        "Jenkins": stamped(lambda at: f"[{moment(at).isoformat()}Z] "),
        "docker compose": stamped(lambda at: "guest-1  | "),
        "stamps switched on": lambda log: (
            text_of(lines_of(log)[:9]) + stamped(lambda at: f"[{at}] ")(text_of(lines_of(log)[9:]))
        ),
        "two tools in turn": each(lambda at, line: (f"<{at}> " if at % 2 else f"({at}) host: ") + line),
    },
    "syslog": {
        "journalctl": each(lambda at, line: f"May 03 12:00:{at % 60:02} rack7 qemu[811]: {line}\\r"),
        "octal": each(lambda at, line: f"{at} " + line.replace("\t", "\\011") + "\\015"),
        "hexadecimal": each(lambda at, line: f"{at} " + line.replace("\t", "\\x09") + "\\x0d"),
        "letters": each(lambda at, line: line.replace("\t", "\\t") + "\\r\\n"),
        "names": each(lambda at, line: line.replace("\t", "<09>") + "<0d>"),
        "rsyslog alone": each(lambda at, line: line.replace("\t", "#011") + "#015"),
    },
    "console": {
        "labgrid's own tabs": each(
            lambda at, line: f"SerialDriver(main) < {line}".replace("\t", "\u2409") + "\u240d\u240a"
        ),
        "pictures": each(lambda at, line: line.replace("\t", "\u2409") + "\u2424"),
        "a name and a picture": each(lambda at, line: f"dut-{at % 2} > {line}\u2424"),
    },
    "mail": {
        "quoted-printable": qp,
        "quoted-printable, quoted": lambda log: text_of(f"> {line}" for line in lines_of(qp(log))),
        "CR LF": lambda log: qp(log).replace(b"\n", b"\r\n"),
        "hexadecimal digits in lower case": lambda log: re.sub(rb"=([0-9A-F]{2})", lambda m: m[0].lower(), qp(log)),
    },
    "words": {
        "72, quoted": filled(72, "> "),
        "76, quoted twice": filled(76, "> > "),
        "60": filled(60),
        "quoted, then filled": after(stamped(lambda at: "> "), filled(72)),
        "long words too": filled(72, hard=True),
        "set in": filled(72, "    "),
        "format=flowed": lambda log: text_of(f"{line} " for line in lines_of(filled(66)(log))),
    },
    "JSON": {
        "kubectl": packed(lambda at, line: {"ts": moment(at).isoformat(), "stream": "stdout", "log": line}),
        "journalctl": packed(lambda at, line: {"_PID": "811", "MESSAGE": line.rstrip()}),
        "journalctl's bytes": packed(lambda at, line: {"MESSAGE": list(line.encode()), "PRIORITY": "6"}),
        "nested": packed(lambda at, line: {"a": {"message": line.rstrip(), "n": at}, "host": "x"}),
        "within JSON": packed(lambda at, line: {"log": json.dumps({"msg": line})}),
        "in parts": lambda log: text_of(
            json.dumps({"log": part + ("\r\n" if ends else ""), "stream": "stdout"}) for part, ends in halves(log)
        ),
        "a list of texts": lambda log: json.dumps(lines_of(log), indent=1).encode() + b"\n",
        "behind a name": lambda log: b"".join(
            b"app-1 | " + line + b"\n" for line in packed(lambda at, line: {"log": line})(log).splitlines()
        ),
        "asciinema": cast,
    },
    "YAML": {
        "LAVA": lava,
        "LAVA 2023.01": lambda log: text_of(line.replace('"', '\\"') for line in lines_of(log)),
        "a block": block_yaml,
        "flow": each(lambda at, line: f"- {{dt: '{moment(at).isoformat()}', lvl: target, msg: {yaml_quoted(line)}}}"),
    },
    "web": {
        "numbers": each(lambda at, line: entities(line)),
        "twice": each(lambda at, line: html.escape(html.escape(line))),
        "no-break spaces": spaces,
        "their entities": each(lambda at, line: html.escape(line).replace(" ", "&nbsp;")),
        "typographic quotes": typographic,
        "a page": lambda log: b"<html><body><pre>" + html.escape(log.decode()).encode() + b"</pre>\n</body></html>\n",
        "lines as elements": each(lambda at, line: f'<span class="line" id="L{at}">{html.escape(line)}</span><br/>'),
    },
    "shown": {
        "cat -A": each(lambda at, line: shown(line)),
        "cat -An": each(lambda at, line: f"{at + 1:6}\t" + shown(line)),
        "grep -n": each(lambda at, line: f"{at + 1}:{line}^M"),
        "vi's": each(lambda at, line: line + "^M"),
    },
    "broken and stamped": {
        "stamped, then 80": after(stamped(lambda at: f"[{moment(at).time()}] "), cut(80)),
        "stamped, then 132": after(stamped(lambda at: f"{moment(at).isoformat()} host: "), cut(132)),
        "a growing stamp, then 100": after(stamped(lambda at: f"{at * 5}: "), cut(100)),
        "80, then stamped": after(cut(80), stamped(lambda at: f"[{at:5}.{at:03}] ")),
        "40 columns": cut(40),
    },
    "inside": {
        "a prompt": inside(4, "(qemu) "),
        "a warning": inside(4, "qemu-system-x86_64: warning: TCG does not support it\n"),
        "a command": inside(4, "(qemu) info status\nVM status: running\n(qemu) "),
        "the kernel's": inside(5, "[12345.678] kvm: emulating exchange as write\n", at=9),
        "before a line": each(lambda at, line: f"(qemu) {line}" if line.startswith("kgen:7 ") else line),
    },
    "after": {
        "a note": each(lambda at, line: f"{line}   # seen" if at % 5 == 0 else line),
        "a bar": each(lambda at, line: f"| {line:<400} |"),
        "a count": each(lambda at, line: f"{line} ({at})"),
    },
    "line ends": {
        "blanks": lambda log: b" ".join(log.split(b"\r\n")) + b"\n",
        "none": lambda log: log.replace(b"\r\n", b" | ") + b"\n",
        "escaped": lambda log: log.replace(b"\r\n", b"\\r\\n") + b"\n",
    },
}
FORMS = {f"{kind}: {name}": form for kind, forms in KINDS.items() for name, form in forms.items()}


def in_base64(log: bytes) -> bytes:
    """A mail's body, which cannot be read line by line."""
    return b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(log)
