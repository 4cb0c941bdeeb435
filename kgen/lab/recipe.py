"""The contents of a lab: a kernel, modules, busybox, a QEMU with all that it loads; and the key made from them."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kgen.errors import SpecError
from kgen.host.process import finish, output
from kgen.lab.initramfs import archive

#: Grows when a lab of an older kgen can no longer be used.
FORMAT = 1
#: The modules to load, without what they depend on, and their options. With nested paging under QEMU/TCG some guests
#: never start their second CPU.
MODULES: Mapping[str, str] = {"kvm-amd": "npt=0"}
#: The data files that QEMU's PC needs: multiboot and PVH loaders, the VGA BIOS and the two firmwares.
FIRMWARE = (
    "bios-256k.bin",
    "kvmvapic.bin",
    "linuxboot_dma.bin",
    "multiboot_dma.bin",
    "pvh.bin",
    "qboot.rom",
    "vgabios-stdvga.bin",
)
BUSYBOX = "/bin/busybox"
#: Where packages have the kernel: from Debian's split ones on (Linux 7.2) it lies beside its modules.
_KERNEL_PLACES = ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz", "lib/modules/*/vmlinuz")
_ASK_SECONDS = 20.0
_INNER = "/usr/bin/qemu-system-x86_64"
_DATA = "/usr/share/qemu"


@dataclass(frozen=True)
class Choice:
    """The user's replacements for parts of the lab's distribution."""

    #: A bzImage.
    kernel: Path | None = None
    #: A directory of modules.
    modules: Path | None = None
    qemu: str | None = None

    @property
    def is_default(self) -> bool:
        """Whether nothing was chosen."""
        return self == Choice()


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a lab."""

    kernel: bytes
    #: The files of the root file system.
    files: Mapping[str, bytes]
    #: The modules that are loaded, in order.
    modules: tuple[str, ...]
    #: Where everything is from.
    sources: Mapping[str, str]

    @property
    def firmware(self) -> tuple[str, ...]:
        """The inner QEMU's data files, by name."""
        return tuple(name for name in FIRMWARE if f"{_DATA}/{name}" in self.files)

    def key(self) -> str:
        """Return a name made of the contents."""
        digest = hashlib.sha256(f"kgen lab {FORMAT}\n".encode())
        for name, data in sorted({"": self.kernel, **self.files}.items()):
            digest.update(f"{name}\0{len(data)}\0".encode())
            digest.update(hashlib.sha256(data).digest())
        return digest.hexdigest()[:16]

    def initramfs(self) -> Iterator[bytes]:
        """Return the root file system's archive, not compressed."""
        programs = frozenset(path for path in self.files if path == "/init" or "/bin/" in path or ".so" in path)
        return archive(self.files, programs)


def recipe(kernel: Path, modules: Path | None, busybox: Path, qemu: Path, sources: Mapping[str, str]) -> Recipe:
    """Gather everything. ``modules`` is a tree to look for .ko files in, None for a kernel with KVM built in.

    Raises SpecError for a part that is missing or cannot be used.
    """
    files: dict[str, bytes] = {
        "/init": _guest(),
        BUSYBOX: _read(busybox),
    }
    loaded = modules_in(modules) if modules is not None else {}
    files |= {f"/modules/{name}.ko": data for name, data in loaded.items()}
    order = "".join(f"{name}.ko {MODULES.get(name, '')}".rstrip() + "\n" for name in loaded)
    files["/modules/order"] = order.encode()
    files |= _program(qemu)
    return Recipe(bzimage(kernel), files, tuple(loaded), sources)


def check(choice: Choice) -> None:
    """Raise SpecError for a kernel or modules that cannot be used, before anything is downloaded."""
    if choice.kernel is not None:
        bzimage(choice.kernel)
    if choice.modules is not None:
        modules_in(choice.modules)


def bzimage(path: Path) -> bytes:
    """Return a kernel's bytes.

    Raises SpecError for a file that QEMU does not start on x86 (Linux/x86 boot protocol: "HdrS").
    """
    data = _read(path)
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


def find_busybox(tree: Path | None = None) -> Path | None:
    """Return a busybox that needs no library: in an unpacked package, or this host's own; None where there is none."""
    places = [tree / "bin/busybox", tree / "usr/bin/busybox"] if tree else []
    if not tree:
        places = [Path(place) for name in ("busybox-static", "busybox") if (place := shutil.which(name))]
    return next((place for place in places if place.is_file() and not _libraries(place)), None)


def modules_in(tree: Path) -> dict[str, bytes]:
    """Return KVM's modules and all they depend on, by name, in the order in which they must be loaded. Raises
    SpecError."""
    if not tree.is_dir():
        raise SpecError("is not a directory", where=str(tree), hint="give the tree that holds kvm.ko and kvm-amd.ko")
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
            hint = "is it built in? then leave --modules out" if not wanted_by else "build the modules too"
            what = f"has no {name}.ko" + (f", which {wanted_by}.ko depends on" if wanted_by else "")
            raise SpecError(what, where=str(tree), hint=hint)
        data = _module(paths[name])
        for needed in dependencies(data, paths[name]):
            load(needed, name)
        loaded[name] = data

    for name in MODULES:
        load(name, "")
    return loaded


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


def made_by(qemu: str) -> str:
    """Return what identifies the parts of a lab that do not come from packages: kgen's own and the inner QEMU."""
    ours = hashlib.sha256(f"kgen lab {FORMAT} {dict(MODULES)}\n".encode() + _guest()).hexdigest()[:16]
    return f"{ours} {fingerprint(qemu)}"


def _guest() -> bytes:
    return (Path(__file__).parent / "guest.sh").read_bytes()


def fingerprint(program: str) -> str:
    """Return what identifies a QEMU that saves or restores a machine's state."""
    path = Path(shutil.which(program) or program).resolve()
    try:
        about = path.stat()
    except OSError:
        return ""
    return f"{path} {about.st_size} {about.st_mtime_ns}"


def _program(qemu: Path) -> dict[str, bytes]:
    """Return a QEMU and all it needs to run, by their places in the lab."""
    data = _read(qemu)
    if data[:4] != b"\x7fELF":
        raise SpecError("is not a Linux program", where=str(qemu), hint="give the QEMU binary itself, not a script")
    files = {_INNER: data}
    for library in _libraries(qemu):
        files[str(library)] = _read(library)
    # The translator and other parts are modules that QEMU loads when it needs them.
    for module in _tcg_modules(qemu):
        files[str(module)] = _read(module)
    directories = [Path(line) for line in output([str(qemu), "-L", "help"], _ASK_SECONDS).splitlines() if line.strip()]
    if not directories:
        raise SpecError("does not run here", where=str(qemu), hint="the lab's QEMU must be one of this system")
    for name in FIRMWARE:
        found = next((place / name for place in directories if (place / name).is_file()), None)
        if found is not None:
            files[f"{_DATA}/{name}"] = _read(found)
    return files


def _libraries(program: Path) -> tuple[Path, ...]:
    """Return the shared libraries of a program and its loader, as ldd names them; () for a static one."""
    done = finish(["ldd", str(program)], _ASK_SECONDS)
    if "not found" in done.text:
        raise SpecError("lacks a library; see ldd", where=str(program))
    words = (word for line in done.text.splitlines() for word in line.split())
    return tuple(dict.fromkeys(Path(word) for word in words if word.startswith("/") and not word.endswith(":")))


def _tcg_modules(qemu: Path) -> Sequence[Path]:
    """Return the file of QEMU's translator: Debian packs it apart."""
    name = "accel-tcg-x86_64.so"
    places = (*Path("/usr/lib").glob("*-linux-gnu/qemu"), Path("/usr/lib64/qemu"), Path("/usr/lib/qemu"))
    return [place / name for place in places if (place / name).is_file()][:1] if qemu.is_relative_to("/usr/bin") else []


def _module(path: Path) -> bytes:
    """Return a module's bytes, unpacked."""
    data = _read(path)
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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpecError(error.strerror or str(error), where=str(path), hint="name a file that can be read") from error
