"""The options that replace parts of the lab's distribution."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from kgen.cli._options import F, gathered, option
from kgen.lab.recipe import Choice


def _lab_choice(kernel: Path | None, modules: Path | None, inner_qemu: str | None) -> Choice:
    return Choice(kernel, modules, inner_qemu)


def lab_options(group: str) -> Callable[[F], F]:
    """Return the options that replace parts of the lab's distribution. The command gets them as ``choice``."""
    path = click.Path(path_type=Path)
    return gathered(
        "choice",
        _lab_choice,
        (
            option(group, "--inner-qemu", metavar="BINARY", help="The QEMU inside, on the inner Linux's KVM."),
            option(
                group, "--modules", type=path, metavar="DIR", help="Tree with kvm.ko and kvm-amd.ko for that kernel."
            ),
            option(
                group, "--kernel", type=path, metavar="BZIMAGE", help="The Linux inside, instead of the distribution's."
            ),
        ),
    )
