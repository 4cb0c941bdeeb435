"""What README and docs say can be done can be done: commands parse, codes and record formats are those of the code."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from recordings import load
from shown import DOCS, FENCE, README, REPOSITORY, blocks, in_blocks, in_text, spec_of, words

from kgen import pytest_plugin, registry
from kgen.cli import main
from kgen.kernel import live, protocol
from kgen.kernel.parameters import (
    ALL_EVERY,
    BLIND_EVERY,
    FIRST_REPEAT,
    FREE_ACCESSES,
    LOSS_PROOF_MS,
    RACE_MS,
    SINGLE_ROUNDS,
    TOKEN_STEP,
    TURN,
)
from kgen.kernel.plan import CASE_ENOUGH, POWER_ENOUGH, PROOF_ENOUGH
from kgen.kernel.results_block import (
    WITNESSES_PER_KIND,
    BootPath,
    Clock,
    Decode,
    KernelState,
    PhaseStatus,
    Style,
    ViolationKind,
)
from kgen.machine.platform import LaunchRequest
from kgen.platforms import platforms
from kgen.report.formats import formats
from kgen.run.verify import judged
from kgen.spec import kernel_spec
from kgen.spec.defaults import PROOF_SECONDS
from kgen.verdict.model import VerdictKind

COMMANDS_PAGE = REPOSITORY / "docs" / "commands.md"
CONTRIBUTING = REPOSITORY / "CONTRIBUTING.md"
LOGS = REPOSITORY / "tests" / "replay" / "logs"
HOW = (REPOSITORY / "docs" / "how-it-works.md").read_text(encoding="utf-8")


def _commands(path: Path) -> Iterator[str]:
    """Yield every command a reader is shown."""
    yield from in_blocks(path)
    yield from in_text(path)


def _of_program(name: str) -> list[str]:
    lines = (command.partition(" #")[0].strip() for path in DOCS for command in _commands(path))
    return list(dict.fromkeys(line for line in lines if line.split()[:1] == [name]))


#: kgen's commands in gdb; their modules exist inside gdb only.
IN_GDB = {
    name
    for path in (REPOSITORY / "kgen" / "gdbside").glob("*.py")
    for name in re.findall(r'^    name = "([a-z-]+)"$', path.read_text(encoding="utf-8"), re.MULTILINE)
}
COMMANDS = set(main.list_commands(click.Context(main)))

# A name in running text (`kgen build`) names the command; only one with options or arguments is a whole command line.
KGEN_LINES = [
    command
    for command in _of_program("kgen")
    if len(split := words(command)) > 2 and "..." not in command and split[1] not in IN_GDB - COMMANDS
]


def _parse(arguments: list[str]) -> click.Context:
    name, command, rest = main.resolve_command(click.Context(main), arguments)
    assert command is not None, f"there is no command {arguments[0]}"
    return command.make_context(name, rest, parent=click.Context(main))


@pytest.mark.parametrize("line", KGEN_LINES)
def test_a_command_line_parses(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the suite that the text says is in a file
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text('[[case]]\ninstr = "xchg"\n')
    context = _parse(words(line)[1:])
    platform = context.params.get("platform")
    assert platform is None or platform in platforms()
    if "instruction" in context.params and not context.params.get("script"):
        spec = spec_of(context)
        suite = context.params["suite"]
        assert spec.suite == (suite or "").removesuffix(".toml")
        assert suite or spec.case.instruction == context.params["instruction"]


def test_every_command_in_gdb_is_documented() -> None:
    documented = re.findall(
        r"^\| `kgen ([a-z-]+)", (REPOSITORY / "docs" / "gdb.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert set(documented) == IN_GDB
    assert len(IN_GDB) == 8


def test_every_command_is_shown_with_an_example() -> None:
    shown = {words(line)[1] for line in _of_program("kgen") if len(words(line)) > 1}
    examples = {line[1] for body in blocks(COMMANDS_PAGE, "sh", "console") for line in _kgen_lines(body)}
    assert set(main.list_commands(click.Context(main))) <= shown & examples


def _kgen_lines(body: str) -> list[list[str]]:
    lines = (line.removeprefix("$ ") for line in body.replace("\\\n", " ").splitlines())
    return [words(line) for line in lines if line.startswith("kgen ")]


def test_an_option_in_the_text_exists() -> None:
    known = {
        option
        for name in main.list_commands(click.Context(main))
        for parameter in _command(name).params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    parser = pytest.Parser(_ispytest=True)
    pytest_plugin.pytest_addoption(parser)
    known |= {name for option in parser.getgroup("kgen").options for name in option.names()}
    text = "\n".join(FENCE.sub("", path.read_text(encoding="utf-8")) for path in DOCS)
    mentioned = set(re.findall(r"`(--[a-z][a-z0-9-]+)", text)) - {"--help"}
    assert mentioned
    assert mentioned <= known


def _command(name: str) -> click.Command:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return command


def test_a_make_target_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    shown = {words(line)[1] for line in _of_program("make") if len(words(line)) > 1}
    assert {"verify", "test"} <= shown
    assert shown <= set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))


def _anchors(path: Path) -> set[str]:
    """Return the names under which a page's headings can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_link_leads_to_a_file() -> None:
    for path in (*DOCS, REPOSITORY / "CHANGELOG.md"):
        for link, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", path.read_text(encoding="utf-8")):
            target = path.parent / link if link else path
            assert target.exists(), f"{path.name}: {link}"
            assert not anchor or anchor in _anchors(target), f"{path.name}: {link}#{anchor}"


def test_every_page_is_in_the_index_once() -> None:
    pages = {path.name for path in (REPOSITORY / "docs").glob("*.md")} - {"index.md"}
    index = (REPOSITORY / "docs" / "index.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^- \[.+\]\((.+\.md)\): .+$", index, re.MULTILINE)) == sorted(pages)


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", ["README.md", "docs/verdicts.md"])
def test_the_exit_codes_are_the_verdicts(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|", text, re.MULTILINE)
    assert {name: int(code) for name, code in rows} == {kind.name: kind.value for kind in VerdictKind}


def test_an_exit_code_beside_a_command_is_its_verdict() -> None:
    pairs = [
        (int(code), name)
        for path in DOCS
        for body in blocks(path, "sh")
        for code, name in re.findall(r"#.*exits (\d+), ([A-Z_]+)", body)
    ]
    assert pairs
    for code, name in pairs:
        assert VerdictKind[name].value == code


def test_the_platforms_and_their_known_answers_are_the_registry() -> None:
    rows = re.findall(
        r"^\| `((?:qemu-|bochs|virtualbox|[a-z]+-lab)\w*)` \| .* \| ([A-Z_]+) \|$",
        (REPOSITORY / "docs" / "machines.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert dict(rows) == {platform.name: platform.known for platform in platforms().values()}


def test_what_can_be_added_is_where_contributing_says() -> None:
    text = CONTRIBUTING.read_text(encoding="utf-8")
    rows = re.findall(r"^\| an? .+ \| `kgen/([\w/]+)/NAME\.py`.* \| `([A-Z]+) = (\w+)\(", text, re.MULTILINE)
    packages = {f"kgen.{directory.replace('/', '.')}": (attribute, kind) for directory, attribute, kind in rows}
    sources = (path.read_text(encoding="utf-8") for path in (REPOSITORY / "kgen").rglob("*.py"))
    assert set(packages) == {name for text in sources for name in re.findall(r'discover\("([\w.]+)"', text)}
    for package, (attribute, kind) in packages.items():
        owner = __import__(package, fromlist=[kind])
        assert registry.discover(package, attribute, getattr(owner, kind))


def test_the_qemu_lines_name_what_the_platforms_use() -> None:
    lines = _of_program("qemu-system-i386")
    kvm = platforms()["qemu-kvm"].command(LaunchRequest(kernel=None))
    assert any(kvm[kvm.index("-cpu") + 1] in line for line in lines)
    assert any("qboot.rom" in line for line in lines)


def _row(kind: str) -> str:
    match = re.search(rf"^\| `{kind}` \| (.*) \| .* \|$", HOW, re.MULTILINE)
    assert match is not None, kind
    # what stands in brackets explains a field
    return re.sub(r"\([^()]*\)", "", match[1])


@pytest.mark.parametrize("kind", protocol.RECORDS)
def test_the_fields_of_a_record_line_are_documented_in_order(kind: str) -> None:
    fields = re.findall(r"([a-z0-9_]+)=%", protocol.RECORDS[kind])
    assert re.findall(r"`([a-z0-9_]+)`", _row(kind)) == fields


@pytest.mark.parametrize(
    ("line", "field", "values"),
    [
        ("boot", "path", BootPath),
        ("cpus", "clock", Clock),
        ("probe", "decode", Decode),
        ("witness", "kind", ViolationKind),
        ("result", "status", PhaseStatus),
        ("live", "style", Style),
        ("end", "state", KernelState),
    ],
)
def test_the_codes_of_a_field_are_documented(line: str, field: str, values: type[KernelState]) -> None:
    match = re.search(rf"^\| `{line}` `{field}` \| (.*) \|$", HOW, re.MULTILINE)
    assert match is not None
    assert match[1] == ", ".join(f"{member.value} {member.name.lower()}" for member in values)


def test_the_numbers_in_the_text_are_the_codes() -> None:
    assert f"{TOKEN_STEP:#X}".replace("0X", "0x") in HOW
    assert f"The first {SINGLE_ROUNDS} rounds" in HOW
    assert f"after {LOSS_PROOF_MS} ms" in HOW
    assert f"the first {WITNESSES_PER_KIND} of a kind and phase" in HOW
    assert f"up to {kernel_spec.experiments()['token'].cells(32)} rounds" in HOW


def test_the_numbers_of_the_rule_are_the_codes() -> None:
    text = " ".join(HOW.split())
    words = {4: "four", 5: "five", 8: "eighth", 15: "fifteenth"}
    assert f"at least {live.LEAST} live batches of the case" in text
    assert f"*L* × *q* / *d* >= {live.NEEDED}" in text
    assert f"the largest of {live.LEAST}, {live.NEEDED} *d* / *q* and {2 * live.NEEDED} *d*, rounded up" in text
    assert f"up to {live.MOST_VIOLATED} a style" in text
    assert f"was in at least {words[live.PAIR_LEAST]}" in text
    assert f"until {CASE_ENOUGH} batches of the case ({PROOF_ENOUGH} of a proof) were violated" in text
    assert f"once {POWER_ENOUGH} of its batches have been violated" in text
    assert f"for `--proof-seconds` ({PROOF_SECONDS})" in text
    assert f"({FIRST_REPEAT}, {2 * FIRST_REPEAT} or {4 * FIRST_REPEAT} operations a CPU" in text
    assert f"up to {words[FREE_ACCESSES]} times that of an access" in text
    assert f"that does not come within {RACE_MS} ms" in text
    assert f"{words[TURN]} batches each" in text
    assert f"Every {words[BLIND_EVERY]} batch of a style draws no tickets" in text
    assert f"in every {words[ALL_EVERY]} of a style" in text


def _printed(number: int, kind: str, *values: str | int) -> str:
    """A line as the guest prints it."""
    given = iter(values)
    body = re.sub("%[uqxs]", lambda match: _converted(match[0], next(given)), protocol.guest_format(kind))
    body = f"{protocol.LINE_PREFIX}{number} {body}"
    return f"{body} crc={zlib.crc32(body.encode()):08x}\r\n"


def _converted(conversion: str, value: str | int) -> str:
    return f"{value:08x}" if conversion == "%x" else str(value)


def _log() -> bytes:
    text = _printed(0, "boot", "0.1.0", "xchg.32.ram.token", "d" * 64, 1, 2, 3, 4, 5, 1, 1)
    text += _printed(1, "cpus", 3, 3, 0, 1, 2_600_000)
    text += protocol.TABLE_HEADER + "\r\n" + "counts:\t1\t0\t1\t0\r\n"
    total = zlib.crc32(text.replace("\r", "").encode())
    return (text + _printed(2, "end", 3, 3, total)).encode()


@pytest.fixture(scope="module")
def intact() -> Callable[[bytes], bool]:
    """The check that the document gives to third parties, as it stands there."""
    (code,) = blocks(REPOSITORY / "docs" / "how-it-works.md", "python")
    names: dict[str, Callable[[bytes], bool]] = {}
    exec(code, names)
    return names["intact"]


def test_the_documented_check_takes_a_whole_log(intact: Callable[[bytes], bool]) -> None:
    assert protocol.parse_log(_log()).intact
    assert intact(_log())
    assert intact(b"SeaBIOS\r\n" + _log() + b"after")


def test_the_documented_check_refuses_what_is_cut(intact: Callable[[bytes], bool]) -> None:
    log = _log()
    for end in range(len(log) - 2):
        assert not intact(log[:end]), end


def test_the_documented_check_refuses_what_is_altered(intact: Callable[[bytes], bool]) -> None:
    log = _log()
    for at in range(len(log) - 2):
        for bit in range(8):
            altered = log[:at] + bytes([log[at] ^ 1 << bit]) + log[at + 1 :]
            assert not intact(altered), f"byte {at}, bit {bit}"


@pytest.mark.parametrize("name", sorted(path.name for path in LOGS.glob("*.log")))
def test_the_documented_check_agrees_with_kgen_on_real_logs(intact: Callable[[bytes], bool], name: str) -> None:
    log = (LOGS / name).read_bytes()
    assert intact(log) == protocol.parse_log(log).intact


def test_no_command_installs_kgen_from_the_package_index() -> None:
    """There the name belongs to another program."""
    named = [line for path in DOCS for line in path.read_text(encoding="utf-8").splitlines() if "pip install" in line]
    assert named
    assert [line for line in named if re.search(r"pip install ['\"]?kgen(?! @)", line)] == []


def _shape(line: str) -> str:
    """Return the line without its numbers."""
    return re.sub(r"[0-9a-f]{8,}|\d+", "N", line)


def test_the_sample_in_the_readme_is_what_kgen_prints() -> None:
    """Its lines are those of the report on a recorded run of the same command, numbers apart, in the same order."""
    (sample,) = blocks(README, "text")
    lines = sample.splitlines()
    assert len(lines) == 12
    recorded = load("kvm-lost")
    report = formats()["text"].render([judged(recorded.spec, recorded.observed())])
    printed = iter(map(_shape, report.splitlines()))
    assert [line for line in lines if _shape(line) not in printed] == []
