"""What kgen's commands in gdb do.

gdb brings a Python of its own, in which only the standard library is sure to be there: modules here, and what they
import of kgen, need nothing else.

``commands`` registers them; it and what it loads import ``gdb``, which exists inside gdb only. The other modules are
plain: from what was read of a machine to lines of text.
"""
