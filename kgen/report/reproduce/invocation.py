"""What a ``kgen verify`` command line chose about the machine and the run, read back from a result's ``invocation``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: Options of ``kgen verify`` that stand alone.
FLAGS = frozenset(
    ("--lock", "--no-lock", "--controls", "--no-controls", "--stop-on-violation", "--keep", "-h", "--help")
)
#: Options that stand alone and decide how the kernel is run.
CHOSEN_FLAGS = frozenset(("--ring3",))
#: Options that decide how the kernel is run. What names the kernel stands in the specification, and where the result
#: went and which exit code was wanted do not change it.
CHOICES: tuple[str, ...] = (
    *("--seconds", "--timeout", "--qemu", "--gdb", "--pin"),
    *("--machine", "--vga", "--firmware", "--cpu", "--boot", "--engine"),
    *("--kernel", "--modules", "--inner-qemu", "--xen", "--release", "--linux"),
)
#: Of those, what names a file or a program.
PATHS = frozenset(("--qemu", "--gdb", "--firmware", "--kernel", "--modules", "--inner-qemu", "--xen"))


@dataclass(frozen=True)
class Chosen:
    """The choices of a command line, as they were written."""

    options: Mapping[str, str] = field(default_factory=dict)
    #: Those of the options that stand alone, in order.
    flags: tuple[str, ...] = ()
    #: --only and --skip, in order, each with its value.
    patterns: tuple[tuple[str, str], ...] = ()
    #: QEMU's own arguments.
    extra: tuple[str, ...] = ()


def chosen(words: Sequence[str]) -> Chosen:
    """Return the choices of a command line ``kgen verify ...``; none of another one.

    Words with characters that cannot be typed are left out: they are from a file that may be damaged.
    """
    if list(words[:2]) != ["kgen", "verify"]:
        return Chosen()
    options: dict[str, str] = {}
    patterns: list[tuple[str, str]] = []
    flags: list[str] = []
    extra: list[str] = []
    rest = [word for word in words[2:] if word.isprintable()]
    while rest:
        word = rest.pop(0)
        if word == "--":
            extra += rest
            break
        name, equals, value = word.partition("=")
        if word in FLAGS:
            continue
        if word in CHOSEN_FLAGS:
            flags.append(word)
            continue
        if not word.startswith("-"):
            extra.append(word)
            continue
        if not equals:
            value = rest.pop(0) if rest else ""
        if name in CHOICES and value:
            options[name] = value
        elif name in ("--only", "--skip") and value:
            patterns.append((name, value))
    return Chosen(options, tuple(dict.fromkeys(flags)), tuple(patterns), tuple(extra))
