"""Everything that goes with a bug report, in one ZIP file: results, logs, and the kernel built again."""

from __future__ import annotations

import hashlib
import io
import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kgen.errors import OutputError
from kgen.report.bug.report import Enclosed
from kgen.report.reproduce.rebuilt import build_ids, rebuilt
from kgen.report.results.model import Run
from kgen.spec import KernelSpec

#: The earliest time that a ZIP file can hold. With it, the same files make the same bytes whenever they are packed.
_EPOCH = (1980, 1, 1, 0, 0, 0)
#: Read and write for the owner, read for all: a Unix mode, in the upper half of a ZIP entry's attributes.
_MODE = 0o100644 << 16
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
_MAX_NAME = 80
#: The file name of the report itself.
REPORT = "report.md"


@dataclass(frozen=True)
class Packed:
    """A file of the bundle."""

    #: Its name in the bundle.
    name: str
    data: bytes
    #: What it is, in words.
    what: str

    @property
    def enclosed(self) -> Enclosed:
        """The file as a report lists it."""
        return Enclosed(self.name, len(self.data), hashlib.sha256(self.data).hexdigest(), self.what)


def collect(runs: Sequence[Run], files: Sequence[tuple[str, bytes]]) -> tuple[Packed, ...]:
    """Return the files of a bundle about these runs, sorted by name: each kernel with image, ELF, listing and manifest,
    each serial log, and ``files``, the result files by the names they had. Raises OutputError where a kernel's image
    cannot be written to a temporary directory."""
    found: list[Packed] = []
    taken: set[str] = {REPORT}
    for name, data in files:
        found.append(
            Packed(
                _free(f"results/{safe(name.removesuffix('.json'))}", ".json", taken),
                data,
                "the result as kgen wrote it",
            )
        )
    kernels: dict[str, str] = {}
    for run in runs:
        if run.spec is not None and run.spec.digest() not in kernels:
            directory = _free(f"kernels/{safe(run.spec.name)}", "", taken)
            kernels[run.spec.digest()] = directory
            found += _kernel(run.spec, run, directory)
        name = safe(run.spec.name if run.spec else "unknown")
        for seen in run.boots:
            if seen.log:
                data = seen.log.encode("latin-1", "replace")
                found.append(Packed(_free(f"logs/{name}", ".txt", taken), data, "the serial port's whole output"))
    return tuple(sorted(found, key=lambda each: each.name))


def safe(name: str) -> str:
    """Return a file name that every system accepts, without a directory: letters, digits and ``. _ + -``."""
    last = re.split(r"[/\\]", name)[-1]
    return _UNSAFE.sub("-", last).strip(".-")[:_MAX_NAME] or "file"


def pack(files: Sequence[Packed]) -> bytes:
    """Return the ZIP file: sorted by name, all entries with the same time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for each in sorted(files, key=lambda entry: entry.name):
            info = zipfile.ZipInfo(each.name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix, on every system: otherwise the bytes would differ
            info.external_attr = _MODE
            archive.writestr(info, each.data)
    return buffer.getvalue()


def _kernel(spec: KernelSpec, run: Run, directory: str) -> Iterator[Packed]:
    """Yield the kernel's files; for a kernel that this kgen cannot build, a note that says why."""
    from kgen.build import write

    found = rebuilt(spec)
    if found.kernel is None:
        yield Packed(f"{directory}/not-built.txt", f"{found.why}\n".encode(), "why the kernel could not be built again")
        return
    ran = build_ids(run)
    note = ""
    if ran and found.kernel.elf.build_id.hex() not in ran:
        note = " (built again by this kgen; the build id is not the one that was run)"
    kinds = {"kernel.img": "bootable disk image", "kernel.elf": "the kernel, for QEMU's -kernel and for gdb"}
    kinds |= {"kernel.s": "its listing", "manifest.json": "what it is, with symbols and checksums"}
    kinds |= {"kernel.elf-gdb.py": "kgen's commands for gdb"}
    try:
        with tempfile.TemporaryDirectory(prefix="kgen-") as place:
            for path in write(found.kernel, Path(place)):
                yield Packed(f"{directory}/{path.name}", path.read_bytes(), kinds.get(path.name, "") + note)
    except OSError as error:
        raise OutputError(error.strerror or str(error), where=tempfile.gettempdir(), hint="set TMPDIR") from error


def _free(stem: str, suffix: str, taken: set[str]) -> str:
    """Return the name, with a number where it is taken. Some systems do not distinguish capital letters from small
    ones."""
    tried, number = f"{stem}{suffix}", 1
    while tried.lower() in taken:
        number += 1
        tried = f"{stem}-{number}{suffix}"
    taken.add(tried.lower())
    return tried
