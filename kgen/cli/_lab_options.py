"""The options that say what a lab is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from kgen.cli._options import F, gathered, option
from kgen.lab.choice import Choice


def _lab_choice(
    kernel: Path | None,
    modules: Path | None,
    inner_qemu: str | None,
    xen: Path | None,
    release: str | None,
    linux: str | None,
) -> Choice:
    return Choice(kernel, modules, inner_qemu, xen, release, linux)


def lab_options(group: str) -> Callable[[F], F]:
    """Return the options that say what a lab is made of. The command gets them as ``choice``."""
    path = click.Path(path_type=Path)
    return gathered(
        "choice",
        _lab_choice,
        (
            option(group, "--xen", type=path, metavar="FILE", help="The Xen inside, instead of the release's."),
            option(
                group, "--linux", metavar="LINE", help="The newest Linux of a line that the archive has, e.g. 6.12."
            ),
            option(
                group, "--release", metavar="NAME", help="Everything of that release of the distribution: bookworm."
            ),
            option(group, "--inner-qemu", metavar="BINARY", help="The QEMU inside, on the inner Linux's KVM."),
            option(
                group, "--modules", type=path, metavar="DIR", help="Tree with kvm.ko and kvm-amd.ko for that kernel."
            ),
            option(
                group, "--kernel", type=path, metavar="BZIMAGE", help="The Linux inside, instead of the distribution's."
            ),
        ),
    )
