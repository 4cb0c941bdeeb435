"""kgen kit: generate a folder for VMware, Hyper-V, USB ..."""

from __future__ import annotations

from pathlib import Path

import click

from kgen.build import build, write
from kgen.cli._options import CaseOptions, GroupedCommand, case_options, file_name, option
from kgen.cli._paths import named
from kgen.errors import unknown
from kgen.kits import check_folder, files, fitted, kits
from kgen.kits._text import unproven
from kgen.media import formats

_EXAMPLES = """\b
Examples:
  kgen kit vmware --instr xchg
  kgen kit hyperv --instr xadd --cpus 4 -o D:/xadd
  kgen kit usb --suite full
"""


@click.command("kit", cls=GroupedCommand, epilog=_EXAMPLES)
@click.argument("name", metavar="PRODUCT")
@case_options
@option("Output", "-o", "--output", type=file_name, metavar="DIR", help="Default: build/CASE/kit-PRODUCT.")
def COMMAND(name: str, asked: CaseOptions, output: Path | None) -> None:
    """Generate a folder with everything to run a kernel on PRODUCT: image, machine, scripts, README.txt.

    PRODUCT is vmware, virtualbox, hyperv, xen, bhyve, libvirt, proxmox, firecracker, cloud-hypervisor or usb ('kgen
    list kits'). The folder may be copied anywhere. Its README.txt says what to type, where the serial log appears and
    how to judge it.
    """
    known = kits()
    if name not in known:
        raise unknown("kit", name, known)
    kit = known[name]
    for each in kit.formats:
        if each not in formats():
            raise unknown("image format", each, formats())
    spec, facts = fitted(kit, asked.spec())
    if facts.left_out:
        click.echo(f"kgen: left out {len(facts.left_out)} cases for which {kit.product} has no device", err=True)
    if facts.unproven:
        click.echo(f"kgen: {unproven(facts)}", err=True)
    directory = output or Path("build") / spec.name.replace(":", ".") / f"kit-{name}"
    check_folder(kit, directory)
    for path in write(build(spec), directory, kit.formats, more=files(kit, facts)):
        click.echo(named(path))
