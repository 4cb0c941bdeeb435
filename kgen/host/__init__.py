"""Processes, signals, temporary directories and facts of this host."""
