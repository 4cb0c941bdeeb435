#!/bin/busybox sh
# dom0's /init: starts what xl needs, then does what the host says on a port of virtio (the first serial port is Xen's own
# console), line by line, until it is ended. Its own lines begin with "kgen-lab: ".
#
#   (empty line)      answered with "ready"
#   file NAME BYTES   that many bytes follow and go to /job/NAME
#   run COMMAND       start it; "ended STATUS", then its output as lines "said ...", when it has ended
#   do MARK COMMAND   carry it out; its output as lines "out MARK ...", then "done MARK STATUS"
#   poweroff          the end

say() {
    echo "kgen-lab: $*"
}

/bin/busybox mkdir -p /bin /dev /proc /sys /tmp /job /run/xen /run/xenstored /run/lock /var/lock /var/lib/xen \
    /var/lib/xenstored /var/log/xen
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/usr/sbin:@TOOLS@
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
mkdir -p /dev/pts
mount -t devpts none /dev/pts
ln -s /run /var/run

# dom0's messages go to Xen's console, where they stay.
dmesg -n 4
exec </dev/null >/dev/hvc0 2>&1
problems=
while read -r module options; do
    insmod "/modules/$module" $options || problems="$problems $module"
done </modules/order
until [ -e @CONSOLE@ ]; do usleep 10000; done
exec <>@CONSOLE@ >&0 2>/dev/null
say "linux $(uname -r)"
for module in $problems; do say "problem $module cannot be loaded"; done

# From QEMU 9.1 on Xen's device model asks for more memory than dom0 has, and uses little of it.
echo 1 >/proc/sys/vm/overcommit_memory
ifconfig lo 127.0.0.1 up
mount -t xenfs none /proc/xen
[ -e /proc/xen/capabilities ] && grep -q control_d /proc/xen/capabilities || say "problem this kernel is no dom0 of Xen"

started() {
    "$@" >/tmp/said 2>&1 </dev/null || say "problem $1 failed: $(tail -n 1 /tmp/said)"
}

started xenstored --pid-file /run/xen/xenstored.pid
started xen-init-dom0
started xenconsoled --pid-file=/run/xen/xenconsoled.pid --log=none
# Once, so that they need not be read and linked for the first time when they are wanted.
started xl info
@MODEL@ --version >/dev/null 2>&1

