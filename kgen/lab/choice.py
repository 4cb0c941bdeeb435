"""What a user chose of a lab."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Choice:
    """Parts of a lab other than this host's distribution has them; None is no choice."""

    #: Linux, a bzImage.
    kernel: Path | None = None
    #: The directory of its modules.
    modules: Path | None = None
    #: The program of the inner QEMU.
    qemu: str | None = None
    #: A Xen hypervisor.
    xen: Path | None = None
    #: The distribution's release that everything else is from, None for this host's own.
    release: str | None = None
    #: The newest Linux of this line in the distribution's archive: "6.12".
    linux: str | None = None

    @property
    def is_default(self) -> bool:
        """Whether nothing was chosen."""
        return self == Choice()

    @property
    def own(self) -> bool:
        """Whether a part is the user's own file: such a lab has no name that another call could find it by."""
        return any(getattr(self, part.name) for part in fields(self) if part.name not in ("release", "linux"))

    def options(self) -> dict[str, object]:
        """Return what was chosen, by the names of the options."""
        names = {"kernel": "--kernel", "modules": "--modules", "qemu": "--inner-qemu", "xen": "--xen"}
        names |= {"release": "--release", "linux": "--linux"}
        return {option: value for name, option in names.items() if (value := getattr(self, name)) is not None}
