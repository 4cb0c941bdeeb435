"""Evidence from machines that kgen did not run: serial logs, memory dumps, result codes, the original program's
table."""
