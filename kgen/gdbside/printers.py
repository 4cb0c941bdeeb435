"""Pretty printers for the results block: ``p results``, ``p results.cpu[1]``, ``p results.witness[0]``."""

from __future__ import annotations

from collections.abc import Iterator

import gdb
import gdb.printing

from kgen.kernel.results_block import NO_CPU, ViolationKind

#: Fields that are not shown.
_HIDDEN = frozenset({"reserved", "reserved0", "reserved1", "reserved2", "padding"})


class _Struct:
    """A struct without its padding."""

    def __init__(self, value: gdb.Value) -> None:
        self._value = value

    def children(self) -> Iterator[tuple[str, gdb.Value]]:
        """Yield the fields."""
        for field in self._value.type.fields():
            if field.name and field.name not in _HIDDEN:
                yield field.name, self._value[field.name]


class CpuPrinter(_Struct):
    """A CPU's entry, or a note that no CPU uses it."""

    def to_string(self) -> str:
        """Return what the CPU does, to be printed before the fields."""
        if not int(self._value["state"]):
            return "unused"
        go, ack = int(self._value["go"]), int(self._value["ack"])
        if not go:
            return str(self._value["state"])
        return f"{self._value['state']}, " + (f"batch {go} acknowledged" if go == ack else f"at work on batch {go}")

    def children(self) -> Iterator[tuple[str, gdb.Value]]:
        """Yield the fields; the exception only where there was one."""
        if int(self._value["state"]):
            for name, value in super().children():
                if name != "fault" or int(value["vector_plus_1"]):
                    yield name, value


class WitnessPrinter:
    """A witness in a line."""

    def __init__(self, value: gdb.Value) -> None:
        self._value = value

    def to_string(self) -> str:
        """Return kind in words, round, cell, token, what was found, CPUs."""
        number = {name: int(self._value[name]) for name in "round kind cell token value cpu other".split()}
        if not number["round"]:
            return "unused"
        kind = next((each.name.lower() for each in ViolationKind if each.value == number["kind"]), "unknown kind")
        who = " and ".join(f"CPU {number[name]}" for name in ("cpu", "other") if number[name] != NO_CPU)
        found = "" if kind in ("lost", "duplicate") else f", found {number['value']:08x}"
        by = f" ({who})" if who else ""
        return f"{kind}, round {number['round']}, cell {number['cell']}, token {number['token']:08x}{found}{by}"


class ResultsPrinter(_Struct):
    """The block: the CPUs that exist, the phases that have begun, the witnesses that were recorded."""

    def to_string(self) -> str:
        """Return the kernel's state and phase."""
        return f"{self._value['state']}, phase {int(self._value['phase_index'])}"

    def children(self) -> Iterator[tuple[str, gdb.Value]]:
        """Yield the fields; of arrays, the entries that are used."""
        # phases begin in their order, and of those that take turns several run
        phase = self._value["phase"]
        low, high = phase.type.range()
        used = {
            "cpu": int(self._value["cpus_found"]),
            "phase": sum(1 for at in range(low, high + 1) if int(phase[at]["status"])),
            "witness": int(self._value["witness_count"]),
        }
        for name, value in super().children():
            if name not in used:
                yield name, value
                continue
            low, high = value.type.range()
            for at in range(low, min(high + 1, used[name])):
                yield f"{name}[{at}]", value[at]


def register() -> None:
    """Make them known to gdb. May be called twice."""
    known = gdb.printing.RegexpCollectionPrettyPrinter("kgen")
    known.add_printer("Cpu", "^Cpu$", CpuPrinter)
    known.add_printer("Witness", "^Witness$", WitnessPrinter)
    known.add_printer("Results", "^Results$", ResultsPrinter)
    gdb.printing.register_pretty_printer(None, known, replace=True)
