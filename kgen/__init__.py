"""kgen: is a LOCKed read-modify-write on memory-mapped I/O atomic here? A kernel, a frozen machine, a verdict."""

__version__ = "0.1.0"
