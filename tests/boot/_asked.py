"""The kgen command in this process: to start another takes longer than most of what is tested here.

What a process alone can show has tests that start one: signals, terminals, and what standard output is given besides.
"""

from __future__ import annotations

import functools
import secrets
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from click.testing import CliRunner, Result
from running import MARK, UNWANTED, marked

from kgen.build import Kernel, build
from kgen.cli import main
from kgen.spec import KernelSpec

#: Where the commands that are asked here find what builds a kernel.
_BUILDERS = ("kgen.build.build", "kgen.run.attach.build", "kgen.run.canary.build", "kgen.run.doctor.build")


@functools.cache
def kernel_of(spec: KernelSpec) -> Kernel:
    """The kernel of a request, built once: the same request makes the same bytes."""
    return build(spec)


def asked(temporary: Path, *arguments: str, **changes: str) -> Result:
    """Run kgen to its end in this process; it must have left nothing in its directory for temporary files, and no
    process."""
    temporary.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(8)
    environment = dict.fromkeys(UNWANTED) | {MARK: mark, "TMPDIR": str(temporary)} | changes
    with ExitStack() as stack:
        stack.enter_context(patch.object(tempfile, "tempdir", str(temporary)))
        for name in _BUILDERS:
            stack.enter_context(patch(name, kernel_of))
        result = CliRunner().invoke(main, arguments, env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert not (left := marked(mark)), f"processes outlived {arguments}: {left}"
    assert not list(temporary.iterdir())
    return result


def assert_line(result: Result, code: int, *parts: str) -> None:
    """It failed with that code and one clear line that has these parts, and said nothing else."""
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("kgen: error: "), lines[0]
    for part in parts:
        assert part in lines[0], lines[0]
