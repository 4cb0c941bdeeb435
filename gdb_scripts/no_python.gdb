# In the place of kgen.py for a gdb that was built without Python (Debian's gdb-minimal): kgen's commands are written in
# it. `kgen gdb` and the command that `kgen verify --keep` prints source this file then.

define kgen
  echo kgen: this gdb has no Python, and kgen's commands need 3.10 or newer; name another gdb with --gdb\n
end

document kgen
Not there: this gdb has no Python, and kgen's commands need 3.10 or newer.
The kernel's symbols, lines and types are there: try 'p results' and 'info threads'.
end
