"""A running machine: its emulator, control session, debugger and gdb stub."""
