"""The kits' folders: what can be checked of them without the products.

Shell scripts go through sh and shellcheck, PowerShell through a grammar, .vmx files through a reader of theirs, the
libvirt domain through libvirt itself. Where a script's flow is followed, a stand-in that this file writes takes the
product's place: it says what the script asks for, never how the product would answer.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner

from kgen.build import build, write
from kgen.cli import main
from kgen.errors import KgenError, OutputError, SpecError
from kgen.kits import COM_PORTS, MAX_NAME, Facts, Kit, check_folder, files, fitted, kits, machine_name
from kgen.kits._text import fill
from kgen.media import formats
from kgen.spec import Case, KernelSpec
from kgen.spec.case import resolve_target
from kgen.spec.defaults import PROOF_SECONDS
from kgen.spec.suites import load

KITS = kits()
#: The last line of a run, as the guest prints it.
END = "kgen:7 end state=3 cpus=4 log=00000000 crc=00000000\r\n"
#: Quotes, blanks, shell and XML characters, a comma, a letter that is not ASCII.
ODD = 'it\'s a "kit", <b> & $HOME `x` \u00e9'
SPEC = KernelSpec(Case("xchg"), rounds=500)
#: What changes the texts: the plain case, another port and more CPUs, a suite with cases that few products can run.
SPECS: Mapping[str, KernelSpec] = {
    "case": SPEC,
    "COM2": KernelSpec(Case("xadd", cpus=6, offset=63), serial_port=0x2F8, baud=9600),
    "suite": KernelSpec(
        (suite := load("full", cpus=4)[1])[0], more=suite[1:], suite="a--long_name", budget=4000, rounds=100
    ),
}

needs_sh = pytest.mark.skipif(shutil.which("sh") is None, reason="there is no sh here")


def spec_of(name: str, case: str = "case") -> KernelSpec:
    """A kit's kernel: on the I/O APIC where the product has no VGA, by COM1 where it has no other port."""
    spec, kit = SPECS[case], KITS[name]
    if not spec.suite and not resolve_target(spec.case.target).requires <= kit.provides:
        spec = replace(spec, case=replace(spec.case, target="ioapic", offset=0))
    return spec if spec.serial_port in COM_PORTS[: kit.coms] else replace(spec, serial_port=COM_PORTS[0])


@cache
def texts(name: str, spec: KernelSpec | None = None) -> dict[str, str]:
    """A kit's files as people see them, with plain line ends."""
    found = files(KITS[name], fitted(KITS[name], spec or spec_of(name))[1])
    return {file: data.decode("ascii").replace("\r\n", "\n") for file, data in found.items()}


def every(suffix: str) -> dict[str, str]:
    """Every file of all kits that ends so, for every specification."""
    return {
        f"{kit}-{case}-{file}": text
        for kit in KITS
        for case in SPECS
        for file, text in texts(kit, spec_of(kit, case)).items()
        if file.endswith(suffix)
    }


def run(*command: str, where: Path, path: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """A script's run, from another directory than its own; ``path`` comes before the PATH."""
    search = os.environ["PATH"] if path is None else f"{path}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command,
        cwd=where.parent,
        env={**os.environ, "PATH": search, "KGEN_SECONDS": "20", **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def unpack(name: str, directory: Path) -> Path:
    """The kit's own files, without kernel and image, in a directory of that name."""
    directory.mkdir(parents=True)
    for file, data in files(KITS[name], fitted(KITS[name], spec_of(name))[1]).items():
        (directory / file).write_bytes(data)
    return directory


# --- what a kit is made from ----------------------------------------------------------------------------------------


def test_there_is_a_kit_for_every_product() -> None:
    assert set(KITS) >= set(
        "vmware virtualbox hyperv xen bhyve libvirt proxmox usb firecracker cloud-hypervisor".split()
    )


@pytest.mark.parametrize("kit", KITS.values(), ids=lambda kit: kit.name)
@pytest.mark.parametrize("case", SPECS)
def test_the_texts_say_what_matters(kit: Kit, case: str) -> None:
    asked = spec_of(kit.name, case)
    spec, facts = fitted(kit, asked)
    found = files(kit, facts)
    assert found == files(kit, fitted(kit, asked)[1]), "not the same twice"
    whole = b"".join(found.values()).decode("ascii")
    assert all(f"kernel.{each}" in whole for each in kit.formats)
    assert spec.name in whole
    assert str(facts.cpus) in whole
    assert not re.search(r"@[A-Z]+@|/home/|/work/|/tmp/|/root/", whole)
    for name, data in found.items():
        windows = name.endswith((".cmd", ".ps1")) or (name.endswith(".txt") and kit.windows)
        assert data.count(b"\r\n") == (data.count(b"\n") if windows else 0), name
    readme = found["README.txt"].decode()
    assert "kgen judge" in readme
    assert re.search(r"^(Start|Write): ", readme, re.MULTILINE)
    assert re.search(r"^Stop: ", readme, re.MULTILINE)
    notes = found["NOTES.txt"].decode()
    assert len(readme.splitlines()) == 2 + 5
    assert max(map(len, (readme + notes).splitlines())) <= 140
    assert "INCONCLUSIVE: " in notes
    mentioned = set(re.findall(r"\b(?:run|stop|write)\.(?:sh|cmd)\b", whole))
    assert mentioned <= set(found), "a file that is not there is spoken of"


def test_a_machine_is_named_after_its_kernel() -> None:
    names = {fitted(KITS["xen"], spec)[1].name for spec in SPECS.values()}
    assert len(names) == len(SPECS)
    for name in names:
        assert re.fullmatch(r"[a-z0-9](-?[a-z0-9])*", name), name
        assert len(name) <= MAX_NAME
    assert machine_name("x" * 200, "0123456789") == "kgen-" + "x" * 49 + "-01234567"
    assert machine_name("suite:A__b", "0123456789") == "kgen-suite-a-b-01234567"
    assert fitted(KITS["xen"], SPEC)[1].name != fitted(KITS["xen"], KernelSpec(Case("xchg"), rounds=501))[1].name


REFUSED = {
    "endless": ("usb", KernelSpec(Case("xchg"), rounds=0), "--rounds 0 has no end"),
    "CPUs": ("hyperv", KernelSpec(Case("xchg", cpus=65)), "65 CPUs asked for; Hyper-V takes 64"),
    "CPUs of VirtualBox": ("virtualbox", KernelSpec(Case("xchg", cpus=33)), "VirtualBox takes 32"),
    "port": ("hyperv", KernelSpec(Case("xchg"), serial_port=0x3E8), "on Hyper-V give one of 0x3f8, 0x2f8"),
    "no COM port": ("xen", KernelSpec(Case("xchg"), serial_port=0x1000), "serial port 0x1000"),
    "device": (
        "vmware",
        KernelSpec(Case("xchg", target="edu")),
        "Player or Fusion has no edu; choose a target",
    ),
    "HPET": ("hyperv", KernelSpec(Case("xchg", target="hpet")), "hpet: Hyper-V has no hpet"),
    "VGA": ("firecracker", KernelSpec(Case("xchg")), "vga-text: Firecracker has no vga; choose a target such as "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_product_cannot_run_is_refused(name: str) -> None:
    kit, spec, words = REFUSED[name]
    with pytest.raises(SpecError) as caught:
        fitted(KITS[kit], spec)
    assert words in caught.value.line


def test_a_suite_loses_what_the_product_has_no_device_for() -> None:
    spec, facts = fitted(KITS["usb"], SPECS["suite"])
    assert {case.target for case in spec.cases}.isdisjoint({"edu", "ivshmem", "pc-testdev"})
    assert set(facts.left_out) == {case.id for case in SPECS["suite"].cases} - {case.id for case in spec.cases}
    assert re.search(
        rf"^Left out: +{len(facts.left_out)} cases", texts("usb", SPECS["suite"])["NOTES.txt"], re.MULTILINE
    )
    assert facts.seconds == 3 * 4000 + 600
    spec, facts = fitted(KITS["libvirt"], SPECS["suite"])
    assert spec == SPECS["suite"]
    assert not facts.left_out
    assert [word for word in facts.fixtures if word not in ("-device", "-object")] == [
        "pc-testdev",
        "edu,addr=0x10",
        "memory-backend-ram,id=kgen-ivshmem,size=1M,share=on",
        "ivshmem-plain,memdev=kgen-ivshmem,addr=0x11",
    ]


def test_a_text_is_filled_in_to_the_last_place() -> None:
    assert fill("a @B@ c", b=1) == "a 1 c"
    for values in ({}, {"b": 1, "c": 2}):
        with pytest.raises(KgenError, match="are not the same"):
            fill("a @B@ c", **values)


def test_a_text_that_is_not_plain_is_a_fault_of_the_kit() -> None:
    def kit(text: str) -> Kit:
        return Kit("odd", "Odd", "", (), lambda _: {"x.sh": text}, frozenset(), 4)

    facts = Facts("a", "a", "a", "a", 3, 1, 0x3F8, 9600, 1)
    assert files(kit("a\n"), facts) == {"x.sh": b"a\n"}
    for text in ("a", "a\r\n", "\u00e9\n"):
        with pytest.raises(KgenError, match=r"odd: x\.sh"):
            files(kit(text), facts)


# --- what can read the files ----------------------------------------------------------------------------------------


@needs_sh
def test_every_shell_script_is_one(tmp_path: Path) -> None:
    for name, text in every(".sh").items():
        script = tmp_path / name
        script.write_text(text)
        done = run("sh", "-n", str(script), where=tmp_path)
        assert done.returncode == 0, f"{name}: {done.stderr}"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say(tmp_path: Path) -> None:
    for name, text in every(".sh").items():
        (tmp_path / name).write_text(text)
    done = run("shellcheck", "-s", "sh", *map(str, tmp_path.glob("*.sh")), where=tmp_path)
    assert done.returncode == 0, done.stdout
    (tmp_path / "bad.sh").write_text('#!/bin/sh\nif [ $1 = "a" ; then\n')
    assert run("shellcheck", str(tmp_path / "bad.sh"), where=tmp_path).returncode != 0


def _powershell_errors(text: str) -> list[str]:
    """Where the grammar is lost in a script."""
    tree_sitter = pytest.importorskip("tree_sitter")
    grammar = pytest.importorskip("tree_sitter_powershell")
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    nodes, found = [parser.parse(text.encode()).root_node], []
    while nodes:
        node = nodes.pop()
        nodes += node.children
        if node.type == "ERROR" or node.is_missing:
            found.append(f"line {node.start_point[0] + 1}: {node.text[:60]!r}")
    return found


@pytest.mark.parametrize("text", every(".ps1").values(), ids=every(".ps1"))
def test_a_powershell_script_is_one(text: str) -> None:
    assert _powershell_errors(text) == []


def test_a_broken_powershell_script_is_found() -> None:
    good = texts("hyperv")["run.ps1"]
    assert _powershell_errors(good) == []
    for right in ("} finally {", "text)\n", "$ended) {"):
        assert right in good
        assert _powershell_errors(good.replace(right, right[1:] if right[0] == "}" else right.replace(")", ""), 1))


@pytest.mark.parametrize("text", every(".cmd").values(), ids=every(".cmd"))
def test_a_batch_file_is_plain(text: str) -> None:
    lines = text.splitlines()
    assert lines[0] == "@echo off"
    assert lines[-1] == "exit /b %code%"
    stripped = 'set "line=%cmdcmdline:"=%"'  # replaces quotes by nothing, before cmd looks for them
    assert lines.count(stripped) == 1
    assert all(line.count('"') % 2 == 0 for line in lines if line != stripped)
    (named,) = re.findall(r'if not "%line:([a-z]+\.cmd)=%"=="%line%" pause$', text, re.MULTILINE)
    assert text.count("(\n") == len(re.findall(r"^\)", text, re.MULTILINE))
    (started,) = re.findall(r'-File "%~dp0([a-z]+\.ps1)" %\*', text)
    assert (started, named) in (("run.ps1", "run.cmd"), ("stop.ps1", "stop.cmd"))
    assert not re.search(r"\b(goto|call)\b|!", text), "labels and delayed expansion are not what these files need"


@pytest.mark.parametrize("case", SPECS)
def test_the_vmx_is_read_back(case: str) -> None:
    reader = pytest.importorskip("dissect.hypervisor.descriptor.vmx")
    facts = fitted(KITS["vmware"], SPECS[case])[1]
    text = texts("vmware", SPECS[case])["kernel.vmx"]
    values = {key.lower(): value for key, value in reader.VMX.parse(text).attr.items()}
    keys = re.findall(r"^([A-Za-z.0-9:]+) = \"[^\"]*\"$", text, re.MULTILINE)
    assert len(keys) == len(text.splitlines()) == len(set(keys))
    port = f"serial{facts.com - 1}"
    wanted = {
        "numvcpus": str(facts.cpus),
        "ide0:0.filename": "kernel.vmdk",
        f"{port}.present": "TRUE",
        f"{port}.filetype": "file",
        f"{port}.filename": "serial.txt",
        "msg.autoanswer": "TRUE",
        "debugstub.port.guest32": "8832",
        "ethernet0.present": "FALSE",
        "displayname": facts.name,
        "virtualhw.version": "14",
    }
    assert {key: values[key] for key in wanted} == wanted


@pytest.mark.parametrize(("cpus", "version"), [(16, 14), (17, 18), (32, 18)])
def test_many_cpus_need_newer_virtual_hardware(cpus: int, version: int) -> None:
    found = texts("vmware", KernelSpec(Case("xchg", cpus=cpus)))
    assert f'virtualHW.version = "{version}"' in found["kernel.vmx"]
    assert ("Workstation 16" in found["NOTES.txt"]) == (version == 18)


def _virsh(*arguments: str, where: Path) -> subprocess.CompletedProcess[str]:
    """virsh with libvirt's own test driver, which reads and checks a domain as the others do, and runs none."""
    if shutil.which("virsh") is None:
        pytest.skip("virsh is not installed")
    return run("virsh", "-c", "test:///default", *arguments, where=where)


@pytest.mark.parametrize("case", SPECS)
def test_libvirt_takes_the_domain(case: str, tmp_path: Path) -> None:
    domain = tmp_path / "domain.xml"
    text = texts("libvirt", SPECS[case])["domain.xml"].replace("__DIRECTORY__", "/a kit")
    domain.write_text(text)
    done = _virsh("define", "--validate", str(domain), where=tmp_path)
    assert done.returncode == 0, done.stderr
    domain.write_text(text.replace("isa-serial", "isa-cereal"))
    assert _virsh("define", "--validate", str(domain), where=tmp_path).returncode != 0


@pytest.mark.parametrize("accelerator", ["kvm", "qemu"])
def test_the_libvirt_script_hands_over_a_valid_domain(accelerator: str, tmp_path: Path) -> None:
    """Up to where the domain would run: each virsh has a test driver of its own, which forgets it."""
    _virsh("uri", where=tmp_path)
    kit = unpack("libvirt", tmp_path / ODD)
    put(tmp_path / "sleep", NO_SLEEP)
    uri = "test:///default"
    done = run("sh", str(kit / "run.sh"), accelerator, where=kit, path=tmp_path, LIBVIRT_DEFAULT_URI=uri)
    assert "created from domain-here.xml" in done.stdout, done.stderr
    assert done.returncode == 1
    assert "the machine has ended before the run;" in done.stderr
    domain = (kit / "domain-here.xml").read_text(encoding="utf-8")
    assert "__DIRECTORY__/" not in domain
    assert f"<domain type='{accelerator}'" in domain
    done = run("sh", str(kit / "stop.sh"), where=kit, LIBVIRT_DEFAULT_URI=uri)
    assert done.returncode == 1
    assert "of this kit" in done.stderr


@pytest.mark.parametrize("case", SPECS)
def test_xl_cfg_is_made_of_settings(case: str) -> None:
    """xl's syntax for numbers, strings and lists is Python's."""
    facts = fitted(KITS["xen"], SPECS[case])[1]
    text = texts("xen", SPECS[case])["xl.cfg"]
    settings = {}
    for line in ast.parse(text).body:
        assert isinstance(line, ast.Assign)
        (name,) = line.targets
        settings[ast.unparse(name)] = ast.literal_eval(line.value)
    # names from xl.cfg(5)
    known = "name uuid type memory vcpus maxvcpus acpi apic hpet bios boot vga videoram vnc vnclisten vif on_poweroff"
    assert set(settings) == {*known.split(), "on_reboot", "on_crash"}
    assert (settings["vcpus"], settings["type"], settings["name"]) == (facts.cpus, "hvm", facts.name)


#: Options of "qm create" and "qm set" as qm(1) has them.
QM = "name description ostype machine bios memory balloon sockets cores cpu vga tablet onboot args ide0 boot".split()


def test_qm_knows_the_options() -> None:
    script = texts("proxmox")["run.sh"]
    calls = re.findall(r"^qm (?:create|set) (?:[^\n]*\\\n)*[^\n]*", script, re.MULTILINE)
    assert len(calls) == 2
    given = [option for call in calls for option in re.findall(r" --([a-z0-9]+)", call)]
    assert sorted(given) == sorted(QM)
    assert "-serial null -serial file:" in texts("proxmox", SPECS["COM2"])["run.sh"]


# --- how the scripts go ---------------------------------------------------------------------------------------------

#: What every stand-in begins with: it notes how it was called.
_NOTE = '#!/bin/sh\nprintf "%s" "${0##*/}" >>"$NOTES"\nprintf " [%s]" "$@" >>"$NOTES"\necho >>"$NOTES"\n'
_END = END.strip()
#: Stand-ins: a machine is there while $STATE/there is; starting it makes the whole log appear where it was asked for.
STANDINS: Mapping[str, Mapping[str, str]] = {
    "virtualbox": {
        "VBoxManage": f"""
case $1 in
--version) echo 7.0.10r158379 ;;
showvminfo)
    [ -e "$STATE/there" ] || exit 1
    [ "${{3:-}}" != --machinereadable ] || cat "$STATE/there"
    ;;
createvm) echo 'VMState="running"' >"$STATE/there" ;;
modifyvm) while [ $# -gt 1 ]; do [ "$1" != file ] || printf '%s' "$2" >"$STATE/serial"; shift; done ;;
storageattach)
    case $* in
    *' --medium none') echo 'VMState="poweroff"' >"$STATE/there" ;;
    *) printf '"IDE-0-0"="%s"\\n' "${{12}}" >>"$STATE/there" ;;
    esac
    ;;
startvm) echo '{_END}' >"$(cat "$STATE/serial")" ;;
unregistervm) rm "$STATE/there" ;;
esac
""",
    },
    "vmware": {
        "vmrun": f"""
[ "$2" = "$(cat "$STATE/type" 2>/dev/null || echo ws)" ] || exit 255
case $3 in
list) [ ! -e "$STATE/there" ] || cat "$STATE/there" ;;
start)
    [ "$4" = kernel.vmx ] || exit 9
    printf '%s\\n' "$(pwd -P)/$4" >"$STATE/there"
    echo '{_END}' >serial.txt
    ;;
suspend) rm "$STATE/there"; touch kernel-1.vmss ;;
stop) rm "$STATE/there" ;;
esac
""",
    },
    "xen": {
        "id": "echo 0\n",
        "xl": f"""
case $1 in
domid) [ -e "$STATE/there" ] ;;
create)
    touch "$STATE/there"
    path=${{4#serial=\\'file:}}
    [ -e "$(dirname "$path")/xl.cfg" ] || exit 9
    echo '{_END}' >"${{path%\\'}}"
    ;;
destroy) rm "$STATE/there" ;;
esac
""",
    },
    "bhyve": {
        "id": "echo 0\n",
        "kldstat": "\n",
        "bhyvectl": "\n",
        "bhyve": f"[ -p /dev/stdin ] || exit 9\n[ -e kernel.img ] || exit 9\necho '{_END}'\n",
    },
    "firecracker": {
        "firecracker": f"""
[ -f vm.json ] && [ -f kernel.pvh64 ] || exit 9
: >firecracker.sock
echo '{_END}'
while :; do /bin/sleep 0.1; done
"""
    },
    "cloud-hypervisor": {
        "cloud-hypervisor": f"""
[ -f kernel.pvh64 ] || exit 9
: >"$2"
echo '{_END}' >serial.txt
while :; do /bin/sleep 0.1; done
"""
    },
    "proxmox": {
        "id": "echo 0\n",
        "pvesh": "echo 117\n",
        "pvesm": '[ "$3" = local-lvm ]\n',
        "qm": f"""
case $1 in
status) [ -e "$STATE/there" ] && echo 'status: running' ;;
create)
    while [ "$1" != --name ]; do shift; done
    echo "name: $2" >"$STATE/there"
    while [ "$1" != --args ]; do shift; done
    path=${{2#-serial file:}}
    echo "${{path%% *}}" >"$STATE/serial"
    ;;
start) echo '{_END}' >"$(cat "$STATE/serial")" ;;
config) cat "$STATE/there" ;;
destroy) rm "$STATE/there" ;;
esac
""",
    },
}
#: The first program that a script misses.
TOOLS = {"virtualbox": "VBoxManage", "vmware": "vmrun", "xen": "xl", "bhyve": "bhyve", "proxmox": "qm"}
TOOLS |= {"libvirt": "virsh"}


#: Nothing is worth waiting for where stand-ins answer at once.
NO_SLEEP = "#!/bin/sh\n"


def put(program: Path, text: str) -> None:
    """A script that can be run."""
    program.write_text(text)
    program.chmod(0o755)


class Stage:
    """A kit in a directory with an odd name, and stand-ins for its product."""

    def __init__(self, name: str, root: Path) -> None:
        self.kit = unpack(name, root / ODD)
        self.state = root / "state"
        self.programs = root / "programs"
        self.notes = root / "notes"
        self.temporary = root / "temporary"
        for directory in (self.state, self.programs, self.temporary):
            directory.mkdir()
        for format_name in KITS[name].formats:
            (self.kit / f"kernel.{format_name}").write_bytes(b"disk")
        (self.kit / "firmware.fd").write_bytes(b"firmware")
        for program, text in STANDINS[name].items():
            put(self.programs / program, _NOTE + text)
        put(self.programs / "sleep", NO_SLEEP)

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One script of the kit; ``calls`` then holds what it asked of the product."""
        self.notes.write_text("")
        return run(
            "sh",
            str(self.kit / script),
            *arguments,
            where=self.kit,
            path=self.programs,
            NOTES=str(self.notes),
            STATE=str(self.state),
            TMPDIR=str(self.temporary),
            KGEN_FIRMWARE=str(self.kit / "firmware.fd"),
        )

    @property
    def calls(self) -> str:
        return self.notes.read_text(encoding="utf-8")


#: What stays in a folder: the log of the run before, and the products' own words.
_SAID = {"serial-old.txt", "bhyve.txt", "firecracker.txt", "stderr.txt", "cloud-hypervisor.txt"}


@needs_sh
@pytest.mark.parametrize("name", STANDINS)
def test_a_script_starts_waits_and_tidies_up(name: str, tmp_path: Path) -> None:
    stage = Stage(name, tmp_path)
    (stage.kit / "serial.txt").write_text("of the run before")
    before = {path.name for path in stage.kit.iterdir()}
    done = stage.run("run.sh")
    assert done.returncode == 0, done.stderr + stage.calls
    assert "judge it with: kgen judge serial.txt" in done.stdout
    assert (stage.kit / "serial.txt").read_text() == f"{_END}\n"
    assert (stage.kit / "serial-old.txt").read_text() == "of the run before"
    started = stage.calls
    if name != "bhyve":  # its stand-in is no machine that could be found again
        done = stage.run("run.sh")
        assert done.returncode == 1, done.stdout
        assert re.search(r"already", done.stderr), done.stderr
        assert not re.search(r"\[(create|createvm|start|startvm|set|modifyvm)\]", stage.calls), stage.calls
    done = stage.run("stop.sh")
    assert done.returncode == 0, done.stderr + stage.calls
    assert not (stage.state / "there").exists()
    assert not list(stage.temporary.iterdir())
    assert {path.name for path in stage.kit.iterdir()} - before <= _SAID
    assert (stage.kit / "serial.txt").read_text() == f"{_END}\n"
    for format_name in KITS[name].formats:
        assert (stage.kit / f"kernel.{format_name}").exists(), "the disk went with the machine"
    if name == "virtualbox":
        order = [stage.calls.index(word) for word in ("[poweroff]", "[none]", "[closemedium]", "[--delete]")]
        assert order == sorted(order)
        assert f"[--medium] [{stage.kit.resolve()}/kernel.vdi]" in started
        assert "[--guest-debug-provider] [gdb]" in started


@needs_sh
@pytest.mark.parametrize("name", [name for name in STANDINS if name != "vmware"])
def test_nothing_is_stopped_that_is_not_the_kits(name: str, tmp_path: Path) -> None:
    stage = Stage(name, tmp_path)
    (stage.state / "there").write_text("name: somebody-elses\n")
    done = stage.run("stop.sh")
    assert done.returncode == 1
    assert "this folder has no" in done.stderr
    if name == "proxmox":
        (stage.kit / "machine-made.txt").write_text("117 /nowhere\n")
        done = stage.run("stop.sh")
        assert done.returncode == 1
        assert "is not of this kit" in done.stderr
    assert (stage.state / "there").exists()
    assert not re.search(r"\[(stop|destroy|unregistervm|--destroy)\]", stage.calls)


@needs_sh
@pytest.mark.parametrize(("name", "call"), [("xen", "xl create"), ("proxmox", "qm create"), ("proxmox", "qm start")])
def test_a_failed_start_leaves_nothing_and_may_be_repeated(name: str, call: str, tmp_path: Path) -> None:
    stage = Stage(name, tmp_path)
    program, word = call.split()
    path = stage.programs / program
    path.write_text(re.sub(rf"^{word}\)", f"{word}) exit 7 ;;\nnever)", path.read_text(), flags=re.MULTILINE))
    before = {path.name for path in stage.kit.iterdir()}
    for _ in range(2):
        done = stage.run("run.sh")
        assert done.returncode != 0
        assert f"[{word}]" in stage.calls
        if word == "start":  # the machine was made: what belongs to it stays until it is removed
            assert "sh stop.sh removes what was made" in done.stderr
            assert "already" in stage.run("run.sh").stderr
            assert stage.run("stop.sh").returncode == 0
        assert not list(stage.temporary.iterdir())
        assert {path.name for path in stage.kit.iterdir()} == before
    # What stays of a machine that went by itself is stop's to remove.
    (stage.kit / "machine-made.txt").write_text(f"{stage.temporary}/gone\n")
    done = stage.run("run.sh")
    assert done.returncode == 1
    assert "already" in done.stderr
    assert f"[{word}]" not in stage.calls


@needs_sh
def test_a_suspended_vmware_machine_is_ended_and_never_resumed_by_a_run(tmp_path: Path) -> None:
    stage = Stage("vmware", tmp_path)
    before = {path.name for path in stage.kit.iterdir()}
    assert stage.run("run.sh").returncode == 0
    run(
        "vmrun",
        "-T",
        "ws",
        "suspend",
        where=stage.kit / "x",
        path=stage.programs,
        NOTES="notes",
        STATE=str(stage.state),
    )
    (stage.kit / "notes").unlink()
    (stage.kit / "serial.txt").write_text("what was measured")
    done = stage.run("run.sh")
    assert done.returncode == 1
    assert "is suspended" in done.stderr
    assert "[start]" not in stage.calls
    done = stage.run("stop.sh")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\[start\].*\n(.*\n)*.*\[stop\]", stage.calls)
    assert (stage.kit / "serial.txt").read_text() == "what was measured", "the machine that went on wrote its own"
    assert {path.name for path in stage.kit.iterdir()} - before == {"serial.txt"}
    assert not (stage.state / "there").exists()


@needs_sh
def test_vmware_player_is_found(tmp_path: Path) -> None:
    stage = Stage("vmware", tmp_path)
    (stage.state / "type").write_text("player\n")
    done = stage.run("run.sh")
    assert done.returncode == 0, done.stderr
    assert "[player] [start]" in stage.calls
    assert stage.run("stop.sh").returncode == 0
    (stage.state / "type").write_text("none\n")
    for script in ("run.sh", "stop.sh"):
        done = stage.run(script)
        assert done.returncode == 1
        assert "KGEN_VMWARE_TYPE=player" in done.stderr
    assert (stage.kit / "serial-old.txt").read_text() == f"{_END}\n"


@needs_sh
@pytest.mark.parametrize("name", ["vmware", "virtualbox"])
def test_a_machine_that_died_is_not_waited_for(name: str, tmp_path: Path) -> None:
    stage = Stage(name, tmp_path)
    program = stage.programs / TOOLS[name]
    program.write_text(program.read_text().replace(f"echo '{_END}'", "echo panic"))
    # It dies while the script sleeps: with its first sleep, but for the one that asks for its end once more.
    put(stage.programs / "sleep", '#!/bin/sh\n: >"$STATE/there"\n')
    done = stage.run("run.sh")
    assert done.returncode == 1
    assert "the machine has ended before the run;" in done.stderr


@needs_sh
@pytest.mark.parametrize("name", KITS)
def test_a_script_says_how_it_is_called(name: str, tmp_path: Path) -> None:
    kit = unpack(name, tmp_path / ODD)
    for script in (path.name for path in kit.glob("*.sh")):
        done = run("sh", str(kit / script), "--help", where=kit)
        assert (done.returncode, done.stderr) == (0, "")
        assert re.fullmatch(rf"usage[a-z, ]*: sh {script}[^\n]*\n", done.stdout)
        for words in (["--headless"], ["a", "b", "c"]):
            done = run("sh", str(kit / script), *words, where=kit)
            assert (done.returncode, done.stdout) == (1, "")
            assert re.fullmatch(rf"{script}: [^\n]*; usage[^\n]*\n", done.stderr)


@needs_sh
@pytest.mark.parametrize("name", ["vmware", "virtualbox"])
def test_a_word_that_is_no_window_starts_nothing(name: str, tmp_path: Path) -> None:
    stage = Stage(name, tmp_path)
    done = stage.run("run.sh", "nogiu")
    assert done.returncode == 1
    assert "nogiu is neither gui nor" in done.stderr
    assert not re.search(r"\[(createvm|start)\]", stage.calls)


@needs_sh
def test_a_run_without_end_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    stage = Stage("vmware", tmp_path)
    program = stage.programs / "vmrun"
    program.write_text(program.read_text().replace(_END, "kgen:3 count phase=0"))
    done = run(
        *("sh", str(stage.kit / "run.sh")),
        where=stage.kit,
        path=stage.programs,
        NOTES=str(stage.notes),
        STATE=str(stage.state),
        KGEN_SECONDS="1",
    )
    assert done.returncode == 1
    assert "no end of the run in 1 s" in done.stderr
    assert (
        "KGEN_SECONDS=soon is not a number"
        in run(*("sh", str(stage.kit / "run.sh")), where=stage.kit, path=stage.programs, KGEN_SECONDS="soon").stderr
    )


@needs_sh
@pytest.mark.parametrize("name", TOOLS)
def test_a_script_says_which_program_is_missing(name: str, tmp_path: Path) -> None:
    kit = unpack(name, tmp_path / ODD)
    programs = tmp_path / "programs"
    programs.mkdir()
    for tool in ("dirname", "uname", "sed", "grep"):
        (programs / tool).symlink_to(shutil.which(tool) or tool)
    for script in ("run.sh", "stop.sh"):
        done = run(shutil.which("sh") or "sh", str(kit / script), where=kit, PATH=str(programs))
        assert done.returncode == 1, done.stdout
        assert re.fullmatch(rf"{script}: there is no ({TOOLS[name]}|bhyvectl) in the PATH; [^\n]+\n", done.stderr)


@pytest.mark.skipif(sys.platform != "linux", reason="the script writes on Linux only")
@pytest.mark.parametrize("device", ["", "/dev/null", "file", "/dev/no-such-disk", "/dev/loop0", "/"])
def test_the_usb_script_writes_to_removable_disks_only(device: str, tmp_path: Path) -> None:
    kit = unpack("usb", tmp_path / ODD)
    target = kit / "file"
    target.write_bytes(b"mine")
    (kit / "kernel.img").write_bytes(b"image")
    words = [str(target) if device == "file" else device] if device else []
    done = run("sh", str(kit / "write.sh"), *words, where=kit)
    assert done.returncode == 1
    assert "usage, as root: sh write.sh /dev/NAME" in (done.stderr if device else done.stdout)
    assert target.read_bytes() == b"mine"


# --- the whole folder -----------------------------------------------------------------------------------------------


#: Kernels, each built once.
_built = cache(build)


@pytest.mark.parametrize("kit", KITS.values(), ids=lambda kit: kit.name)
def test_the_folder_is_whole(kit: Kit, tmp_path: Path) -> None:
    kernel = _built(spec_of(kit.name))
    missing = [name for name in kit.formats if name not in formats()]
    if missing:
        pytest.skip(f"there is no format {', '.join(missing)} yet")
    assert all(formats()[name].suffix == f".{name}" for name in kit.formats), "the scripts call it by another name"
    own = files(kit, fitted(kit, kernel.spec)[1])
    folder = tmp_path / ODD.replace('"', "")
    written = write(kernel, folder, kit.formats, more=own)
    images = {f"kernel.{name}" for name in kit.formats}
    always = {"kernel.elf", "kernel.elf-gdb.py", "kernel.s", "manifest.json"}
    assert {path.name for path in written} == images | set(own) | always
    assert {path.name for path in folder.iterdir()} == {path.name for path in written}
    digests = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    for path in written:
        if path.name != "manifest.json":
            assert digests[path.name] == hashlib.sha256(path.read_bytes()).hexdigest(), path.name
        if os.name == "posix":
            assert bool(path.stat().st_mode & stat.S_IXUSR) == (path.suffix == ".sh"), path.name
    assert all((folder / name).read_bytes() == data for name, data in own.items())


def test_the_command_writes_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kgen.cli.kit.build", _built)
    folder = tmp_path / "a kit"
    done = CliRunner().invoke(main, ["kit", "usb", "--instr", "xchg", "-o", str(folder)], prog_name="kgen")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [str(path) for path in sorted(folder.iterdir())]
    spec = KernelSpec(Case("xchg"), proof_seconds=PROOF_SECONDS)
    assert (folder / "write.sh").read_bytes() == files(KITS["usb"], fitted(KITS["usb"], spec)[1])["write.sh"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["vmwaer", "--instr", "xchg"], "unknown kit 'vmwaer'; did you mean vmware?"),
        (["usb"], "give --instr NAME or --suite NAME"),
        (["usb", "--instr", "xchg", "--rounds", "0"], "--rounds 0 has no end"),
        (["usb", "--instr", "xchg", "--target", "pc-testdev"], "a real PC has no pc-testdev; choose a target"),
        ([], "missing argument 'PRODUCT'"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["kit", *arguments, "-o", str(tmp_path / "out")], prog_name="kgen")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert words in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--instr", "xchg"], ""),
        (["--instr", "xchg", "--target", "ram"], ""),
        (
            ["--instr", "xchg", "--target", "framebuffer"],
            "kgen: this case can be NOT_ATOMIC, but never ATOMIC",
        ),
        (
            ["--instr", "xchg", "--target", "0xfed00108"],
            "kgen: this case can be NOT_ATOMIC, but never ATOMIC",
        ),
        (["--suite", "full"], "of the"),
    ],
)
def test_a_case_that_no_log_proves_is_told(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kgen.cli.kit.build", _built)
    done = CliRunner().invoke(main, ["kit", "usb", *words, "-o", str(tmp_path)], prog_name="kgen")
    assert done.exit_code == 0, done.stderr
    assert told in done.stderr
    (line, *_) = [row for row in done.stderr.splitlines() if "ATOMIC" in row] or [""]
    assert bool(line) == bool(told)
    assert ("ATOMIC: " in re.sub("INCONCLUSIVE", "", (tmp_path / "NOTES.txt").read_text())) == bool(told)
    if found := re.search(r"(\d+) of the (\d+) cases", line):
        manifest = json.loads((tmp_path / "manifest.json").read_text())["spec"]
        cases = [manifest["case"], *manifest["more"]]
        silent = [case for case in cases if case["target"] not in ("ram", "vga-text", "vga-graphics")]
        assert (int(found[1]), int(found[2])) == (len(silent), len(cases))


def test_a_folder_of_another_kit_is_left_alone(tmp_path: Path) -> None:
    for name in ("xen", "usb"):
        folder = unpack(name, tmp_path / name)
        check_folder(KITS[name], folder)
        (folder / "machine-made.txt").write_text("x")
        with pytest.raises(OutputError, match="its machine is still there"):
            check_folder(KITS[name], folder)
        (folder / "machine-made.txt").unlink()
    check_folder(KITS["usb"], tmp_path / "nowhere")
    before = sorted((tmp_path / "xen").iterdir())
    done = CliRunner().invoke(main, ["kit", "usb", "--instr", "xchg", "-o", str(tmp_path / "xen")], prog_name="kgen")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "is a kit for Xen; choose another folder with -o" in done.stderr
    assert sorted((tmp_path / "xen").iterdir()) == before
    (tmp_path / "usb" / "README.txt").write_text("somebody's own\n")
    check_folder(KITS["xen"], tmp_path / "usb")


#: A clock that goes on by so many seconds each time it is asked, and a machine that never ends.
_CLOCK = '#!/bin/sh\nread -r now <"$STATE/now"\necho $((now + %d)) >"$STATE/now"\necho "$now"\n'


def _waits(stage: Stage, seconds: int, step: int) -> tuple[str, int]:
    """What a script says that waits in vain on such a clock, and how often it sleeps."""
    (stage.state / "now").write_text("1000\n")
    put(stage.programs / "date", _CLOCK % step)
    put(stage.programs / "sleep", '#!/bin/sh\necho sleep >>"$STATE/slept"\n')
    more = {"NOTES": str(stage.notes), "STATE": str(stage.state), "KGEN_SECONDS": str(seconds)}
    done = run("sh", str(stage.kit / "run.sh"), where=stage.kit, path=stage.programs, **more)
    assert done.returncode == 1
    assert f"no end of the run in {seconds} s" in done.stderr
    return done.stderr, len((stage.state / "slept").read_text().splitlines())


@needs_sh
@pytest.mark.parametrize("step", [1, 50])
def test_the_deadline_is_of_the_clock_and_not_of_turns(step: int, tmp_path: Path) -> None:
    """A turn takes longer than its sleep where the product's program is slow to answer."""
    stage = Stage("virtualbox", tmp_path)
    program = stage.programs / TOOLS["virtualbox"]
    program.write_text(program.read_text().replace(_END, "kgen:3 count phase=0"))
    _, slept = _waits(stage, 100, step)
    assert 100 // step - 2 <= slept <= 100 // step


@needs_sh
@pytest.mark.parametrize(("said", "words"), [("", "serial.txt is empty"), ("panic", "nothing has come for 60 s")])
def test_a_log_that_stays_silent_is_reported_once(said: str, words: str, tmp_path: Path) -> None:
    stage = Stage("virtualbox", tmp_path)
    program = stage.programs / TOOLS["virtualbox"]
    program.write_text(program.read_text().replace(f"echo '{_END}'", f"printf '{said}'"))
    stderr, _ = _waits(stage, 300, 10)
    assert stderr.count(words) == 1
    assert stderr.count("Is the machine still running?") == 1


@pytest.mark.parametrize("name", KITS)
def test_a_dump_is_judged_with_its_log(name: str) -> None:
    """The two are compared, and without the log nothing can be ATOMIC."""
    assert "judge --memory" not in texts(name)["NOTES.txt"]


def test_the_notes_on_xen_name_what_distributions_have() -> None:
    found = texts("xen")
    assert "backendtype=qdisk" in found["run.sh"]
    assert "backendtype=qdisk" in found["xl.cfg"]
    assert 'pmemsave 0x100000 0x200000 \\"$PWD/kgen.mem\\"' in found["NOTES.txt"]
    assert "built without gdbsx" in found["NOTES.txt"]


@pytest.mark.parametrize("cpus", [3, KITS["xen"].max_cpus])
def test_the_largest_kernel_is_within_the_memory_that_the_notes_on_xen_save(cpus: int) -> None:
    case = Case.from_id("xchg.32.vga-text.token.cpus128" if cpus == 128 else "xchg.32.vga-text.token")
    kernel = _built(KernelSpec(case))
    assert max(part.address + part.size for part in kernel.assembly.sections) < 0x100000 + 0x200000
