"""Recorded runs (tests/replay/logs), and a guest that lies: its lines changed and signed again."""

from __future__ import annotations

import ctypes
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from kgen.build import Kernel
from kgen.evidence.from_memory import from_memory
from kgen.evidence.from_serial import from_log
from kgen.evidence.mtree import NOT_ASKED, PathEvidence
from kgen.evidence.observation import SERIAL_ONLY, Observation
from kgen.evidence.records import Record
from kgen.kernel.plan import layout_of, phases
from kgen.kernel.protocol import parse_log
from kgen.kernel.render import tasks
from kgen.kernel.results_block import ResultsLayout
from kgen.spec import KernelSpec

DIRECTORY = Path(__file__).parents[1] / "replay" / "logs"
NAMES = tuple(sorted(path.stem for path in DIRECTORY.glob("*.json")))

_NATIVE = re.compile(r"kgen:\d+ ([a-z]+) .* crc=[0-9a-f]{8}")


@dataclass(frozen=True)
class Recording:
    """One recorded run. ``log`` has CR LF line ends, as the guest sent them; ``block`` is the results block."""

    spec: KernelSpec
    platform: str
    path: PathEvidence
    paths: Mapping[int, PathEvidence]
    cells: tuple[int, ...]
    crash: str
    cut: str
    log: bytes
    layout: ResultsLayout
    block: bytes

    @property
    def lines(self) -> list[str]:
        """The log's lines without their ends."""
        return self.log.decode("latin-1").replace("\r", "").split("\n")[:-1]

    def observed(self, log: bytes | None = None, block: bytes | None = None) -> Observation:
        """What kgen makes of both channels, either of them exchanged for another."""
        serial, rows = _serial(self.log if log is None else log)
        return Observation(
            platform=self.platform,
            serial=serial,
            memory=_memory(self.layout, self.block if block is None else block),
            path=self.path,
            paths=self.paths,
            crash=self.crash,
            cut=self.cut,
            cells=self.cells,
            rows=rows,
        )

    def alone(self, log: bytes | None = None) -> Observation:
        """What kgen makes of the log where that is all there is."""
        observation = self.observed(log)
        return replace(observation, platform=SERIAL_ONLY, memory=None, path=NOT_ASKED, paths={}, cells=())


@lru_cache(maxsize=64)
def _serial(log: bytes) -> tuple[Record | None, tuple[tuple[int, int, int, int], ...]]:
    """What a log says. Tests judge the same log alone and beside memory, and case by case."""
    parsed = parse_log(log)
    return from_log(parsed), parsed.rows


@lru_cache(maxsize=64)
def _memory(layout: ResultsLayout, block: bytes) -> Record:
    return from_memory(layout, block)


@cache
def load(name: str) -> Recording:
    """The recording of that name. Its kernel may be of an older kgen: the digest in its log is brought up to date."""
    kept = json.loads((DIRECTORY / f"{name}.json").read_text(encoding="utf-8"))
    spec = KernelSpec.from_json(json.dumps(kept["spec"]))
    layout = layout_of(spec)
    block = layout.results()
    fill(block, kept["block"])
    block.size, block.version = layout.size, layout.version
    text = (DIRECTORY / f"{name}.log").read_bytes().decode("latin-1").replace("\r", "")
    lines = re.sub(r" digest=[0-9a-f]{64} ", f" digest={spec.digest()} ", text, count=1).split("\n")[:-1]
    return Recording(
        spec=spec,
        platform=kept["platform"],
        path=PathEvidence(**kept["path"]),
        paths={int(index): PathEvidence(**path) for index, path in kept["paths"].items()},
        cells=tuple(kept["cells"]),
        crash=kept["crash"],
        cut=kept["cut"],
        log=signed(lines),
        layout=layout,
        block=bytes(block),
    )


def fill(value: Any, kept: Mapping[str, Any]) -> None:
    """Put what was kept into a ctypes structure or array. A field that the layout no longer has is left out."""
    for name, entry in kept.items():
        if isinstance(value, ctypes.Array):
            if isinstance(entry, Mapping):
                fill(value[int(name)], entry)
            else:
                value[int(name)] = entry
        elif hasattr(value, name):
            if isinstance(entry, Mapping):
                fill(getattr(value, name), entry)
            else:
                setattr(value, name, entry.encode() if isinstance(entry, str) else entry)


def moved(run: Recording, kernel: Kernel) -> tuple[bytes, list[str]]:
    """The block and the log's lines as ``kernel``, another build of what was recorded, would have left them: its build
    id, its routines, and its memory for the cells in RAM."""
    block: Any = run.layout.parse(run.block)
    symbols = kernel.elf.symbols
    ctypes.memmove(block.build_id, kernel.elf.build_id, len(kernel.elf.build_id))
    texts = [(bytes(run.layout.parse(run.block).build_id).hex(), kernel.elf.build_id.hex())]
    for phase in phases(run.spec):
        if phase.target.symbol and block.phase[phase.index].status.value:
            address = symbols[phase.target.symbol] + phase.offset
            texts.append((f"address={block.phase[phase.index].address:08x}", f"address={address:08x}"))
            block.phase[phase.index].address = address
    for name, value in tasks(run.spec)[block.phase_index].items():
        setattr(block.handshake.task, name, symbols[value] if isinstance(value, str) else value)
    lines = run.lines
    for old, new in texts:
        lines = [line.replace(old, new) for line in lines]
    return bytes(block), lines


def signed(lines: Sequence[str]) -> bytes:
    """The log of these lines with every number and checksum as an honest guest would print them."""
    made: list[str] = []
    sequence = 0
    for line in lines:
        match = _NATIVE.fullmatch(line)
        if match is None:
            made.append(line)
            continue
        body = re.sub(r"^kgen:\d+", f"kgen:{sequence}", line[: line.rindex(" crc=")])
        sequence += 1
        if match[1] in ("done", "end"):
            whole = "".join(f"{entry}\n" for entry in made)
            body = re.sub(r"log=[0-9a-f]{8}", f"log={zlib.crc32(whole.encode('latin-1')):08x}", body)
        made.append(f"{body} crc={zlib.crc32(body.encode('latin-1')):08x}")
    return "".join(f"{line}\r\n" for line in made).encode("latin-1")
