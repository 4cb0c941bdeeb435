"""JUnit XML, as Jenkins, GitLab and most other servers read it.

The text is valid by both schemas in use: Jenkins' junit-10.xsd (xunit-plugin) and Windy Road's JUnit.xsd, of which the
second demands what the first leaves open: the order of elements, a time and a host for every suite.
"""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence

from kgen.report.formats import ReportFormat
from kgen.report.formats._outcome import Outcome, facts_of, name_of, names_apart, outcome_of, seconds_of
from kgen.report.results.model import Result, Run, account
from kgen.wording import printable

#: The schema demands a time; this one stands for one that is not known.
_UNKNOWN_TIME = "1970-01-01T00:00:00"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?=Z?$)", re.ASCII)
#: The schema's type for numbers of seconds takes no more digits before the point.
_MOST_SECONDS = 999.999
#: Characters; servers keep every report for years.
_MOST_TEXT = 16_384


def render(runs: Sequence[Run]) -> str:
    """Return a ``testsuite`` a run, a ``testcase`` a case."""
    suites = ElementTree.Element("testsuites")
    for number, (run, name) in enumerate(zip(runs, names_apart(runs), strict=True)):
        # a dot in a class's name begins a package of its own
        part = f".{name.replace('.', '_')}" if name else ""
        suites.append(_suite(run, f"kgen.{run.platform}{part}", number))
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def _suite(run: Run, package: str, number: int) -> ElementTree.Element:
    counts = Counter(outcome_of(result.verdict.kind) for result in run.results)
    seconds = [seconds_of(result) for result in run.results]
    suite = ElementTree.Element(
        "testsuite",
        _clean(
            {
                "name": (run.spec.name if run.spec else "") or "unknown",
                "package": package,
                "id": str(number),
                "timestamp": _time(run.results[0]),
                "hostname": "localhost",
                "tests": str(len(run.results)),
                "failures": str(counts[Outcome.FAILED]),
                "errors": str(counts[Outcome.BROKEN]),
                "skipped": str(counts[Outcome.SKIPPED]),
                "time": _seconds(sum(seconds)),
            }
        ),
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _properties(run).items():
        ElementTree.SubElement(properties, "property", _clean({"name": name, "value": value}))
    for result, took in zip(run.results, seconds, strict=True):
        suite.append(_case(result, package, took))
    ElementTree.SubElement(suite, "system-out").text = _text(f"read from {run.where}\n" if run.where else "")
    ElementTree.SubElement(suite, "system-err").text = ""
    return suite


def _case(result: Result, package: str, took: float) -> ElementTree.Element:
    about = {"name": name_of(result), "classname": package, "time": _seconds(took)}
    case = ElementTree.Element("testcase", _clean(about))
    outcome, verdict = outcome_of(result.verdict.kind), result.verdict
    if outcome is not Outcome.PASSED:
        why = _clean({"type": verdict.kind.name, "message": verdict.reason})
        ElementTree.SubElement(case, outcome.value, why).text = _text(f"\n{account(result)}")
    return case


def _properties(run: Run) -> Mapping[str, str]:
    first = run.results[0]
    asked = {
        "kgen": first.kgen,
        "digest": run.spec.digest() if run.spec else "",
        "invocation": shlex.join(first.invocation),
    }
    return {name: value for name, value in {**asked, **facts_of(first.observation)}.items() if value}


def _time(result: Result) -> str:
    started = result.observation.environment.get("started")
    found = _TIME.match(started) if isinstance(started, str) else None
    return found[0] if found else _UNKNOWN_TIME


def _seconds(value: float) -> str:
    return f"{min(value, _MOST_SECONDS):.3f}"


def _text(text: str) -> str:
    shown = (
        text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}\n... ({len(text) - _MOST_TEXT} more characters)\n"
    )
    # stricter than XML 1.0 (https://www.w3.org/TR/xml/#charsets): what shows the report may obey more than XML refuses
    return "\n".join(printable(line) for line in shown.split("\n"))


def _clean(attributes: Mapping[str, str]) -> dict[str, str]:
    """Names and values as XML's tokens: no line ends, nothing that XML cannot hold."""
    return {name: " ".join(_text(value).split()) or "-" for name, value in attributes.items()}


FORMAT = ReportFormat("junit", ".xml", "JUnit XML, for servers that collect tests", render)
