"""Is a LOCKed exchange on VGA memory atomic on this target? Run it with pytest --lg-env qemu.yaml or pc.yaml."""

import subprocess
import sys

import pytest

#: Runs until one tells. On a busy machine one may end without its proof; it is then INCONCLUSIVE, exit code 4. Each is
#: judged by itself: what several of them showed is never added up.
RUNS = 3
INCONCLUSIVE = 4


def judge(log: bytes, directory):
    """'kgen judge' on one run's serial record, whole or not: it says which."""
    file = directory / "serial.txt"
    file.write_bytes(log)
    words = ["judge", str(file), "--json", str(directory / "result.json")]
    return subprocess.run(
        [sys.executable, "-m", "kgen", *words], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def runs(strategy):
    """Run after run: the serial port's output of each."""

    def run():
        for _ in range(RUNS):
            strategy.transition("ran")
            yield strategy.log

    yield run()
    strategy.transition("off")


def test_a_locked_exchange_is_atomic(runs, tmp_path):
    for log in runs:
        judged = judge(log, tmp_path)
        print(judged.stdout)
        if judged.returncode != INCONCLUSIVE:
            break
    assert judged.returncode == 0, judged.stdout + judged.stderr
