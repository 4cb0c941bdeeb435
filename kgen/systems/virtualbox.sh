#!/bin/sh
# inside DIRECTORY PROGRAM [ARGUMENT...]: run a program in this root, as root of a user namespace of its own.
# DIRECTORY is /mnt there; what is started ends with the program. Nothing on the host changes: the mounts, the new
# root too, are the namespace's own.
PATH=$PATH:/usr/sbin:/sbin
if [ "$1" != --mounted ]; then
    exec unshare --user --map-root-user --mount --pid --fork --kill-child -- "$0" --mounted "$@"
fi
set -e
shift
root='{lab}'
shared=$(cd "$1" && pwd -P)
shift
new=$shared/root
mkdir -p "$new"
mount -t tmpfs -o mode=755 kgen "$new"
cd "$new"
mkdir usr etc proc dev tmp run mnt
for name in bin lib lib64 sbin; do ln -s "usr/$name" "$name"; done
mount --rbind "$root/usr" usr
echo 'root:x:0:0:root:/tmp:/bin/false' >etc/passwd
echo 'root:x:0:' >etc/group
# a container whose own /proc is partly hidden may not mount another one
mount -t proc kgen proc 2>/dev/null || mount --rbind /proc proc
for name in null zero full random urandom; do
    : >"dev/$name"
    mount --bind "/dev/$name" "dev/$name"
done
mkdir dev/shm
ln -s /proc/self/fd dev/fd
mount --rbind "$shared" mnt
enter=$(command -v chroot)
unset LD_PRELOAD LD_LIBRARY_PATH TMPDIR XDG_CONFIG_HOME VBOX_USER_HOME VBOX_IPC_SOCKETID
export PATH=/usr/bin:/usr/lib/virtualbox HOME=/tmp USER=root LOGNAME=root LANG=C.UTF-8
exec "$enter" . "$@"
