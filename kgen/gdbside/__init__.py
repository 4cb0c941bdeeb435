"""kgen's commands in gdb.

gdb has a Python of its own, in which only the standard library is sure to exist. The modules here, and what they import
of kgen, need nothing else.

``register`` makes the commands known. It and the modules that it loads import ``gdb``, which exists inside gdb only.
The other modules do not: they make lines of text from what was read of a machine.
"""
