"""A labgrid strategy that runs a kgen kernel once: write the image, switch the power on, listen until the last line.

It works on whatever switches power and has a serial port: QEMUDriver, a PC behind a power switch. Where a storage
driver is bound (and a USB-SD-Mux, if the medium sits in one), the image is written first.
"""

import enum
import re
import time

import attr
from labgrid.factory import target_factory
from labgrid.step import step
from labgrid.strategy.common import Strategy, StrategyError, never_retry
from pexpect import TIMEOUT

#: The kernel's closing line. Whether the log is whole is for 'kgen judge' to tell, which knows the checksums.
LAST_LINE = re.compile(rb"^kgen:[0-9]+ end [^\r\n]*\r?\n", re.MULTILINE)
#: No line of the kernel is longer.
LONGEST_LINE = 4096


class Status(enum.Enum):
    """What the target is in: ``ran`` says that a kernel was booted and has come to its end, or its time has."""

    unknown = 0
    off = 1
    ran = 2


@target_factory.reg_driver
@attr.s(eq=False)
class KgenStrategy(Strategy):
    """``log`` is the serial port's whole output of the last run, ``complete`` whether its last line came.

    ``seconds`` is what a run may take from power on, ``silence`` how long the port may say nothing in between.
    """

    bindings = {  # noqa: RUF012 (labgrid asks for a dictionary here)
        "power": "PowerProtocol",
        "console": "ConsoleProtocol",
        "storage": {"USBStorageDriver", None},
        "mux": {"USBSDMuxDriver", None},
    }

    status = attr.ib(default=Status.unknown)
    seconds = attr.ib(default=300.0, converter=float)
    silence = attr.ib(default=60.0, converter=float)

    def __attrs_post_init__(self):
        super().__attrs_post_init__()
        self.log = b""
        self.complete = False

    @never_retry
    @step(args=["status"])
    def transition(self, status, *, step):
        """Bring the target into a state; ``ran`` always runs the kernel anew."""
        if not isinstance(status, Status):
            status = Status[status]
        if status is Status.unknown:
            raise StrategyError(f"can not transition to {status}")
        self._off()
        if status is Status.ran:
            self._write()
            # It listens before there is something to hear: the record begins with the first byte.
            self.target.activate(self.console)
            self.power.on()
            self._listen()
        self.status = status

    def _off(self):
        self.target.activate(self.power)
        self.power.off()
        self.target.deactivate(self.console)
        # in QEMUDriver both are one
        self.target.activate(self.power)
        self.status = Status.off

    def _write(self):
        if self.storage is None:
            return
        if self.mux is not None:
            self.target.activate(self.mux)
            self.mux.set_mode("host")
        self.target.activate(self.storage)
        self.storage.write_image()
        self.target.deactivate(self.storage)
        if self.mux is not None:
            self.mux.set_mode("dut")

    def _listen(self):
        self.log, self.complete = b"", False
        deadline = time.monotonic() + self.seconds
        while not self.complete:
            left = min(self.silence, deadline - time.monotonic())
            if left <= 0:
                return
            try:
                self.log += self.console.read(size=4096, timeout=left)
            except TIMEOUT:
                return
            start = max(0, len(self.log) - LONGEST_LINE - 4096)
            self.complete = LAST_LINE.search(self.log, start) is not None
