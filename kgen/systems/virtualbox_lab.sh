#!/bin/busybox sh
# The lab's /init: loads VirtualBox's driver, starts VirtualBox's server, then does what the host says on a port of virtio
# (the first serial port is Linux's own console, the second one the test machine's), line by line, until it is ended. Its
# own lines begin with "kgen-lab: ".
#
#   (empty line)      answered with "ready"
#   run COMMAND       start it; "ended STATUS", then its output as lines "said ...", when it has ended
#   do MARK COMMAND   carry it out; its output as lines "out MARK ...", then "done MARK STATUS"
#   poweroff          the end
#
# Lines "log ..." are those of the machine's log that tell of its end.

say() {
    echo "kgen-lab: $*"
}

/bin/busybox mkdir -p /bin /dev /etc /proc /sys /tmp /job @HOME@ /root
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/usr/lib/virtualbox HOME=/root USER=root LOGNAME=root VBOX_USER_HOME=@HOME@
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
mkdir -p /dev/shm
mount -t tmpfs none /dev/shm
ln -s /proc/self/fd /dev/fd
echo 'root:x:0:0:root:/root:/bin/sh' >/etc/passwd
echo 'root:x:0:' >/etc/group

# Linux's messages go to its console, where they stay.
dmesg -n 4
exec </dev/null >/dev/ttyS0 2>&1
problems=
while read -r module options; do
    insmod "/modules/$module" $options || problems="$problems $module"
done </modules/order
until [ -e @CONSOLE@ ]; do usleep 10000; done
exec <>@CONSOLE@ >&0 2>/dev/null
# A port of virtio is opened once: what sends lines beside the dialogue uses this descriptor.
exec 3>&1
say "linux $(uname -r)"
for module in $problems; do say "problem $module cannot be loaded"; done
if [ -e /dev/vboxdrv ]; then chmod 600 /dev/vboxdrv; else say "problem VirtualBox's driver has made no device"; fi
ifconfig lo 127.0.0.1 up

# Not started by the first command that needs it, so that it does not end a moment after the last one. A command that
# comes before it is ready would start another one, and both fail.
VBoxSVC >/tmp/server 2>&1 </dev/null &
tries=0
until [ -e /tmp/.vbox-root-ipc/ipcd ] || [ $tries = 600 ]; do
    tries=$((tries + 1))
    usleep 100000
done
tries=0
until VBoxManage -q list systemproperties >/tmp/said 2>&1 </dev/null; do
    tries=$((tries + 1))
    if [ $tries = 10 ]; then
        say "problem VBoxManage failed: $(tail -n 1 /tmp/said)"
        break
    fi
    sleep 1
done

# The machine without what a run chooses.
made() {
    VBoxManage -q "$@" >/tmp/said 2>&1 </dev/null || say "problem VBoxManage $1 failed: $(tail -n 1 /tmp/said)"
}

@MACHINE@

