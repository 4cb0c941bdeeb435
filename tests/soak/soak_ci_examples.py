"""The examples for CI systems in their own tools. What is not installed is skipped, and says so:
pip install labgrid check-jsonschema; Debian's lava-common has LAVA's schema."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running import environment, kgen

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
WORKFLOW = EXAMPLES / "github-actions" / "kgen.yml"
PIPELINE = EXAMPLES / "gitlab-ci" / "kgen.yml"


def _yaml(path: Path) -> Any:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _run(words: list[str], directory: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=directory,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_labgrid_runs_the_strategy(tmp_path: Path) -> None:
    """QEMUDriver, labgrid's pytest plugin, a real run; the same test on KVM would fail, with kgen's verdict."""
    pytest.importorskip("labgrid", reason="labgrid is not installed")
    for path in (EXAMPLES / "labgrid").iterdir():
        shutil.copy(path, tmp_path)
    # no --rounds: a proof needs as many live batches as it needs
    built = kgen(tmp_path / "tmp", "build", "--instr", "xchg", "-o", str(tmp_path / "build/labgrid"))
    assert built.process.returncode == 0, built.stderr
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--lg-env", "qemu.yaml", "test_kgen.py"]
    done = _run(words, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_labgrid_binds_the_drivers_of_a_pc(tmp_path: Path) -> None:
    """Every driver finds its resource in pc.yaml, and the strategy its drivers; no hardware is touched."""
    labgrid = pytest.importorskip("labgrid", reason="labgrid is not installed")
    for path in (EXAMPLES / "labgrid").iterdir():
        shutil.copy(path, tmp_path)
    strategy = labgrid.Environment(str(tmp_path / "pc.yaml")).get_target("main").get_driver("Strategy")
    bound = [type(getattr(strategy, name)).__name__ for name in ("power", "console", "storage", "mux")]
    assert bound == ["NetworkPowerDriver", "SerialDriver", "USBStorageDriver", "USBSDMuxDriver"]


@pytest.mark.parametrize(
    ("example", "schema", "right", "wrong"),
    [
        (WORKFLOW, "vendor.github-workflows", "runs-on:", "runs-in:"),
        (PIPELINE, "vendor.gitlab-ci", "codequality:", "codequalities:"),
    ],
    ids=["GitHub", "GitLab"],
)
def test_an_example_keeps_its_schema(tmp_path: Path, example: Path, schema: str, right: str, wrong: str) -> None:
    """The schemas that GitHub's and GitLab's editors use, as check-jsonschema carries them."""
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    # GitLab's own tags (!reference) are no YAML of others
    words += ["--data-transform", "gitlab-ci"] if "gitlab" in schema else []
    done = _run([*words, str(example)], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    text = example.read_text(encoding="utf-8")
    assert text.count(right) == 1
    broken = tmp_path / "broken.yml"
    broken.write_text(text.replace(right, wrong), encoding="utf-8")
    assert _run([*words, str(broken)], tmp_path).returncode != 0


def _programs(directory: Path) -> str:
    """A PATH on which ``kgen`` is this one."""
    programs = directory / "bin"
    programs.mkdir()
    (programs / "kgen").write_text(f'#!/bin/sh\nexec {sys.executable} -m kgen "$@"\n')
    (programs / "kgen").chmod(0o755)
    return f"{programs}{os.pathsep}{os.environ['PATH']}"


def test_the_steps_of_the_workflow_do_what_they_say(tmp_path: Path) -> None:
    """Ask and Compare, as a runner would run them: passed against its own answer, failed against a better one."""
    steps = {step["name"]: step for step in _yaml(WORKFLOW)["jobs"]["atomicity"]["steps"] if "run" in step}
    path = _programs(tmp_path)
    known = tmp_path / "known.json"

    def step(name: str) -> subprocess.CompletedProcess[str]:
        changes = {"PLATFORM": "qemu-tcg", "BASELINE": str(known), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
        return _run(["bash", "-e", "-c", steps[name]["run"]], tmp_path, PATH=path, **changes)

    asked = step("Ask")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    shutil.copy(tmp_path / "result.json", known)
    same = step("Compare with what is known")
    assert same.returncode == 0, same.stdout + same.stderr
    assert same.stdout.startswith("::notice title=kgen compare::result: ")
    assert "passed: no case is worse" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    # without the VGA nothing that was ATOMIC on it is proven any more
    words = ("verify", "--suite", "smoke", "--json", str(tmp_path / "result.json"), "--", "-vga", "none")
    kgen(tmp_path / "tmp", *words, seconds=300)
    worse = step("Compare with what is known")
    assert worse.returncode == 1, worse.stdout + worse.stderr
    assert "::error title=unproven%3A xchg.32.vga-text.token in result" in worse.stdout


def test_the_steps_of_the_pipeline_do_what_they_say(tmp_path: Path) -> None:
    """The script as GitLab's runner would run it: in bash, each part until one fails."""
    job = _yaml(PIPELINE)["kgen"]
    path = _programs(tmp_path)
    known = tmp_path / "qemu-tcg.json"

    def steps(*parts: str) -> subprocess.CompletedProcess[str]:
        script = "set -eo pipefail\n" + "\n".join(parts)
        return _run(["bash", "-c", script], tmp_path, PATH=path, PLATFORM="qemu-tcg", BASELINE=str(known))

    ask, *rest = job["script"]
    asked = steps(ask)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    shutil.copy(tmp_path / "result.json", known)
    same = steps(*rest)
    assert same.returncode == 0, same.stdout + same.stderr
    assert json.loads((tmp_path / "codequality.json").read_text(encoding="utf-8")) == []
    for name in (*job["artifacts"]["paths"], *job["artifacts"]["reports"].values()):
        assert (tmp_path / name).stat().st_size > 0
    # without the VGA nothing that was ATOMIC on it is proven any more
    words = ("verify", "--suite", "smoke", "--json", str(tmp_path / "result.json"), "--", "-vga", "none")
    kgen(tmp_path / "tmp", *words, seconds=300)
    worse = steps(*rest)
    assert worse.returncode == 1, worse.stdout + worse.stderr
    assert "\nFAILED: " in worse.stdout
    found = json.loads((tmp_path / "codequality.json").read_text(encoding="utf-8"))
    critical = {each["check_name"] for each in found if each["severity"] == "critical"}
    # a target that needs the VGA is not there any more; of the others a busy host may have had no proof before either
    assert "kgen-vanished" in critical
    assert critical <= {"kgen-unproven", "kgen-vanished"}


@pytest.mark.parametrize("job", sorted((EXAMPLES / "lava").glob("*.yaml")), ids=lambda job: job.stem)
def test_a_lava_job_keeps_its_schema(job: Path) -> None:
    schemas = pytest.importorskip("lava_common.schemas", reason="Debian's lava-common is not installed")
    definition = _yaml(job)
    schemas.validate(definition)
    definition["actions"][-1]["test"]["monitors"][0]["patern"] = ""
    with pytest.raises(Exception, match="extra keys not allowed"):
        schemas.validate(definition)
