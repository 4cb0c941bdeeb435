"""Evidence that was made elsewhere: serial logs, memory dumps, result codes, other programs' tables."""
