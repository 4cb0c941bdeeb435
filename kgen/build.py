"""From a specification to a kernel, and from a kernel to files."""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from kgen import __version__
from kgen.errors import OutputError
from kgen.kernel.parameters import LOAD_ADDRESS
from kgen.kernel.plan import Phase, decisive, layout_of, phases
from kgen.kernel.render import render
from kgen.kernel.results_block import LAYOUT_VERSION, ResultsLayout
from kgen.media import Payload, formats
from kgen.resources import data_dir
from kgen.spec import KernelSpec
from kgen.toolchain.assembler import assemble, keystone_version
from kgen.toolchain.assembly import Assembly
from kgen.toolchain.linker import Elf, flat_image, link
from kgen.toolchain.listing import listing

MANIFEST_SCHEMA = 1


@dataclass(frozen=True)
class Kernel:
    """A built kernel: everything the files and the runs are made from."""

    spec: KernelSpec
    assembly: Assembly
    elf: Elf

    @functools.cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The phases, in the order they run."""
        return phases(self.spec)

    @functools.cached_property
    def decisive(self) -> Mapping[int, Phase]:
        """By index, the phases whose violations make the last case NOT_ATOMIC."""
        return {phase.index: phase for phase in decisive(self.spec)}

    @functools.cached_property
    def layout(self) -> ResultsLayout:
        """The results block."""
        return layout_of(self.spec)

    def results_address(self, field: str = "") -> int:
        """Return the physical address of the results block, or of one of its fields."""
        distance = self.layout.constants()[f"Results.{field}"] if field else 0
        return self.elf.symbols["results"] + distance

    @property
    def payload(self) -> Payload:
        """The kernel as a disk loader takes it."""
        flat = flat_image(self.elf.sections)
        return Payload(
            flat=flat.data,
            load_address=flat.load_address,
            entry=self.elf.entry,
            bss_end=flat.bss_end,
            serial_port=self.spec.serial_port,
            baud=self.spec.baud,
            title=self.spec.name,
            pvh_entry=self.elf.symbols["pvh_entry"],
        )


def build(spec: KernelSpec) -> Kernel:
    """Render, assemble, link. Deterministic to the byte. Raises SourceError, AsmError, LinkError."""
    with _no_collecting():
        assembly = assemble(render(spec), origin=LOAD_ADDRESS)
        variables = {"results": layout_of(spec).results}
        elf = link(assembly, entry="entry", variables=variables, spec_json=spec.to_json())
        return Kernel(spec, assembly, elf)


@contextlib.contextmanager
def _no_collecting() -> Iterator[None]:
    """Assemble without a look for garbage: a build makes a hundred thousand small values and hardly any in cycles, and
    collecting costs a tenth of its time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def manifest(kernel: Kernel, files: Mapping[str, str]) -> str:
    """``manifest.json``: what the kernel is and what to check it against. ``files`` maps names to SHA-256 digests."""
    symbols = {symbol.name: symbol.value for symbol in kernel.assembly.symbols if symbol.kind != "abs"}
    return (
        json.dumps(
            {
                "schema": MANIFEST_SCHEMA,
                "case": kernel.spec.case.id,
                "spec": asdict(kernel.spec),
                "digest": kernel.spec.digest(),
                "build_id": kernel.elf.build_id.hex(),
                "phases": [phase.label for phase in kernel.phases],
                "entry": f"{kernel.elf.entry:#x}",
                "symbols": {name: f"{value:#x}" for name, value in sorted(symbols.items())},
                "files": dict(sorted(files.items())),
                "versions": {"kgen": __version__, "results": LAYOUT_VERSION, "keystone": keystone_version()},
            },
            indent=2,
        )
        + "\n"
    )


def write(
    kernel: Kernel,
    directory: Path,
    image_formats: tuple[str, ...] = ("img",),
    *,
    more: Mapping[str, bytes] = MappingProxyType({}),
) -> tuple[Path, ...]:
    """Write the kernel's files into ``directory`` and return their paths. ``image_formats`` are names of ``formats``;
    each adds one file. Raises OutputError, MediaError.

    ``more`` are files to be put beside them, by name; those that end with ``.sh`` may be executed by all who may read
    them.

    Each file appears whole or not at all, and all are complete before the first one replaces an older one.
    """
    known = formats()
    staging = directory / f".kgen-{secrets.token_hex(4)}.tmp"
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise OutputError(error.strerror or str(error), where=str(directory), hint="choose another with -o") from error
    try:
        digests = {}
        texts = {
            "kernel.elf": kernel.elf.data,
            # gdb runs it, where it is allowed to, when it loads the ELF
            "kernel.elf-gdb.py": (data_dir("gdb_scripts") / "autoload.py").read_bytes(),
            "kernel.s": listing(kernel.assembly).encode(),
            **more,
        }
        for name, data in texts.items():
            (staging / name).write_bytes(data)
            digests[name] = hashlib.sha256(data).hexdigest()
            if name.endswith(".sh"):
                _let_run(staging / name)
        for name in image_formats:
            image = staging / f"kernel{known[name].suffix}"
            with _no_collecting():  # images have assembled parts of their own
                known[name].write(kernel.payload, image)
            digests[image.name] = _sha256_sparse(image)
        (staging / "manifest.json").write_bytes(manifest(kernel, digests).encode())
        names = sorted(path.name for path in staging.iterdir())
        for name in names:
            os.replace(staging / name, directory / name)
    except OSError as error:
        raise OutputError(error.strerror or str(error), where=str(directory), hint="choose another with -o") from error
    finally:
        with contextlib.suppress(OSError):
            for leftover in staging.iterdir():
                leftover.unlink()
            staging.rmdir()
    return tuple(directory / name for name in names)


def _let_run(path: Path) -> None:
    """Execute permission wherever there is read permission; without effect on Windows."""
    mode = path.stat().st_mode
    path.chmod(mode | (mode & 0o444) >> 2)


def _sha256_sparse(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 16):
            digest.update(chunk)
    return digest.hexdigest()
