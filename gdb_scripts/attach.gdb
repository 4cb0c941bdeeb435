# Settings for a gdb that looks at a kgen kernel. kgen sources them before it connects; they suit any gdb of the user:
#
#     gdb -x gdb_scripts/attach.gdb kernel.elf
#     (gdb) target remote PATH-OR-HOST:PORT
#
# With qemu-system-x86_64 use `set architecture i386:x86-64` before `target remote`; qemu-system-i386 needs nothing.
# Leave with `disconnect`: the machine stays as it is. `detach` and `quit` let it run on.

# Never wait for a key to be pressed.
set pagination off
set confirm off
set width 0
set height 0

# Stop and start all CPUs together, and let an interrupt through while they run.
set non-stop off
set mi-async on

# Where no stub listens, report it at once: do not try again for fifteen seconds.
set tcp auto-retry off

# Other CPUs and devices change memory while gdb looks: always read it anew.
set stack-cache off
set code-cache off
set trust-readonly-sections off

set disassembly-flavor intel
set print pretty on
set print symbol on
