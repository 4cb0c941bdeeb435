"""The request: a case, a kernel's specification, suites, defaults, and checks of arguments."""

from kgen.spec.case import Case
from kgen.spec.kernel_spec import KernelSpec

__all__ = ["Case", "KernelSpec"]
