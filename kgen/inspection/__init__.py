"""Reading a stopped machine: counters, memory, the scene of a violation."""
