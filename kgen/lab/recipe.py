"""The contents of a lab: a kernel, modules, busybox, a hypervisor with all that it loads; the key made from them."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kgen.errors import SpecError
from kgen.host.process import finish, output
from kgen.lab.initramfs import archive
from kgen.lab.root import ELF

#: Grows when a lab of an older kgen can no longer be used.
FORMAT = 2
BUSYBOX = "/bin/busybox"
#: What stands for the lab's directory in the words of its machine.
HERE = "{lab}"
#: What stands there for a file that the lab has as a disk, and that the host reads and writes.
SHARE = "{share}"
#: What a lab's four serial ports carry, where its system does not say otherwise (kgen.lab.outer).
PORTS = ("console", "serial", "gdb", "control")
#: Where packages have the kernel: from Debian's split ones on (Linux 7.2) it lies beside its modules.
_KERNEL_PLACES = ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz", "lib/modules/*/vmlinuz")
_ASK_SECONDS = 20.0


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a lab."""

    #: Linux, a bzImage.
    kernel: bytes
    #: The files of the root file system.
    files: Mapping[str, bytes]
    #: The modules that are loaded, in order.
    modules: tuple[str, ...]
    #: Where everything is from.
    sources: Mapping[str, str]
    #: The outer QEMU's arguments, with HERE in place of the lab's directory.
    machine: tuple[str, ...] = ()
    #: Which hypervisor is inside, in its own words.
    inside: str = ""
    #: Further files of the lab, which the outer QEMU loads.
    loaded: Mapping[str, bytes] = field(default_factory=dict)
    #: The data files that the inner QEMU has, by name.
    firmware: tuple[str, ...] = ()
    #: What the outer machine's serial ports carry.
    ports: tuple[str, ...] = PORTS

    def key(self) -> str:
        """Return a name made of the contents."""
        digest = hashlib.sha256(f"kgen lab {FORMAT}\n{self.machine}\n".encode())
        for name, data in sorted({"": self.kernel, **self.files, **self.loaded}.items()):
            digest.update(f"{name}\0{len(data)}\0".encode())
            digest.update(hashlib.sha256(data).digest())
        return digest.hexdigest()[:16]

    def initramfs(self) -> Iterator[bytes]:
        """Return the root file system's archive, not compressed."""
        programs = frozenset(
            path for path, data in self.files.items() if path == "/init" or "bin/" in path or data.startswith(ELF)
        )
        return archive(self.files, programs)


def bzimage(path: Path) -> bytes:
    """Return a kernel's bytes.

    Raises SpecError for a file that QEMU does not start on x86 (Linux/x86 boot protocol: "HdrS").
    """
    data = read(path)
    if data[0x202:0x206] != b"HdrS":
        raise SpecError("is not a bzImage", where=str(path), hint="give arch/x86/boot/bzImage of a built kernel")
    return data


def find_kernel(tree: Path) -> Path:
    """Return the kernel in unpacked packages. Raises SpecError."""
    found = [path for place in _KERNEL_PLACES for path in sorted(tree.glob(place)) if path.is_file()]
    if not found:
        hint = "give --kernel (and --modules) of your own"
        what = f"the distribution's packages hold no {' or '.join(_KERNEL_PLACES)}"
        raise SpecError(what, where=str(tree), hint=hint)
    return found[0]


def host_busybox() -> Path | None:
    """Return this host's busybox, None where it has none that needs no library."""
    return _static(Path(place) for name in ("busybox-static", "busybox") if (place := shutil.which(name)))


def busybox_in(tree: Path) -> Path:
    """Return the busybox of an unpacked package. Raises SpecError where it needs libraries."""
    found = _static((tree / "bin/busybox", tree / "usr/bin/busybox"))
    if found is None:
        raise SpecError("the distribution's busybox needs libraries", where="kgen lab build")
    return found


def _static(places: Iterable[Path]) -> Path | None:
    return next((place for place in places if place.is_file() and not libraries(place)), None)


def modules_in(
    tree: Path, wanted: Sequence[str], *, missing: Callable[[str], bool] = lambda name: False
) -> dict[str, bytes]:
    """Return modules and all they depend on, by name, in the order in which they must be loaded.

    A wanted module for which ``missing`` is true may be absent: it may be built in. Raises SpecError.
    """
    if not tree.is_dir():
        where = " and ".join(f"{name}.ko" for name in wanted)
        raise SpecError("is not a directory", where=str(tree), hint=f"give the tree that holds {where}")
    paths: dict[str, Path] = {}
    for path in sorted(tree.rglob("*.ko*")):
        name, _, suffix = path.name.partition(".ko")
        if suffix in ("", ".xz", ".gz", ".zst"):
            paths.setdefault(name.replace("_", "-"), path)
    loaded: dict[str, bytes] = {}

    def load(name: str, wanted_by: str) -> None:
        if name in loaded:
            return
        if name not in paths:
            if not wanted_by and missing(name):
                return
            hint = "is it built in? then leave --modules out" if not wanted_by else "build the modules too"
            what = f"has no {name}.ko" + (f", which {wanted_by}.ko depends on" if wanted_by else "")
            raise SpecError(what, where=str(tree), hint=hint)
        data = _module(paths[name])
        for needed in dependencies(data, paths[name]):
            load(needed, name)
        loaded[name] = data

    for name in wanted:
        load(name, "")
    return loaded


def module_files(loaded: Mapping[str, bytes], options: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files from which a lab's /init loads these modules, in their order and with their options."""
    order = "".join(f"{name}.ko {options.get(name, '')}".rstrip() + "\n" for name in loaded)
    return {f"/modules/{name}.ko": data for name, data in loaded.items()} | {"/modules/order": order.encode()}


def dependencies(module: bytes, path: Path) -> tuple[str, ...]:
    """Return the names in a module's "depends" field (section .modinfo). Raises SpecError."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        section = ELFFile(io.BytesIO(module)).get_section_by_name(".modinfo")
        fields = section.data().split(b"\0") if section else []
    except ELFError as error:
        raise SpecError(f"is not a kernel module: {error}", where=str(path)) from error
    words = next((field.removeprefix(b"depends=") for field in fields if field.startswith(b"depends=")), b"")
    return tuple(name.replace("_", "-") for name in words.decode(errors="replace").split(",") if name)


def fingerprint(program: str) -> str:
    """Return what identifies a QEMU that saves or restores a machine's state."""
    path = Path(shutil.which(program) or program).resolve()
    try:
        about = path.stat()
    except OSError:
        return ""
    return f"{path} {about.st_size} {about.st_mtime_ns}"


def host_program(program: Path) -> dict[str, bytes]:
    """Return a program of this host and its libraries, by their places. Raises SpecError."""
    return {str(program): read(program)} | {str(library): read(library) for library in libraries(program)}


def libraries(program: Path) -> tuple[Path, ...]:
    """Return the shared libraries of a program and its loader, as ldd names them; () for a static one."""
    done = finish(["ldd", str(program)], _ASK_SECONDS)
    if "not found" in done.text:
        raise SpecError("lacks a library; see ldd", where=str(program))
    words = (word for line in done.text.splitlines() for word in line.split())
    return tuple(dict.fromkeys(Path(word) for word in words if word.startswith("/") and not word.endswith(":")))


def data_directories(qemu: Path) -> list[Path]:
    """Return the directories in which a QEMU of this host looks for its data files. Raises SpecError."""
    found = [Path(line) for line in output([str(qemu), "-L", "help"], _ASK_SECONDS).splitlines() if line.strip()]
    if not found:
        raise SpecError("does not run here", where=str(qemu), hint="the lab's QEMU must be one of this system")
    return found


def read(path: Path) -> bytes:
    """Return a file's bytes. Raises SpecError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpecError(error.strerror or str(error), where=str(path), hint="name a file that can be read") from error


def _module(path: Path) -> bytes:
    """Return a module's bytes, unpacked."""
    data = read(path)
    try:
        if path.suffix == ".xz":
            return lzma.decompress(data)
        if path.suffix == ".gz":
            return gzip.decompress(data)
    except (OSError, lzma.LZMAError) as error:
        raise SpecError(f"cannot be unpacked: {error}", where=str(path)) from error
    if path.suffix == ".zst":
        raise SpecError("is packed with zstd", where=str(path), hint="unpack it first: zstd -d --rm")
    return data
