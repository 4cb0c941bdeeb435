"""The commands that repeat a result."""
