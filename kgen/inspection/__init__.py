"""Reading a machine that stands still: counters, memory, the scene of a violation."""
