#!/bin/busybox sh
# The lab's /init: loads KVM, then does what the host says on the first serial port, line by line, until it is ended.
# Its own lines begin with "kgen-lab: "; between them come the records of /dev/kmsg, as that device gives them.
#
#   (empty line)      answered with "ready"
#   file NAME BYTES   that many bytes follow and go to /job/NAME
#   run COMMAND       start it; "ended STATUS", then its output as lines "said ...", when it has ended
#   trace on FILTER   record kvm:kvm_mmio events that pass the filter
#   trace off         record no more
#   trace read REGEX  the recorded lines that contain it, as lines "trace ..."
#   poweroff          the end

say() {
    echo "kgen-lab: $*"
}

/bin/busybox mkdir -p /bin /dev /proc /sys /tmp /job
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/usr/sbin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys

# From here on the kernel's messages come through /dev/kmsg: written by a process, they cannot fall into our lines.
dmesg -n 1
for number in 0 1 2 3; do
    stty -F /dev/ttyS$number raw -echo 115200
done
say "linux $(uname -r)"

while read -r module options; do
    insmod "/modules/$module" $options || say "problem $module cannot be loaded"
done </modules/order
[ -e /dev/kvm ] || say "problem this kernel has no /dev/kvm: neither built-in KVM nor modules for AMD's SVM"

tracing=
for directory in /sys/kernel/tracing /sys/kernel/debug/tracing; do
    [ -n "$tracing" ] || ! mount -t tracefs none $directory 2>/dev/null || tracing=$directory
done
[ -e "$tracing/events/kvm/kvm_mmio/enable" ] || tracing=
if [ -n "$tracing" ]; then
    echo 0 >"$tracing/tracing_on"
    # KiB for each CPU: about 6000 events of each, of which the newest are kept; printing them takes 0.3 ms each
    echo 384 >"$tracing/buffer_size_kb"
    # one clock for all CPUs: the order of two CPUs' events is what the record is for
    echo global >"$tracing/trace_clock"
    echo 1 >"$tracing/events/kvm/kvm_mmio/enable"
fi

cat /dev/kmsg &
# Once, so that it need not be read and linked for the first time when it is wanted.
qemu-system-x86_64 --version >/dev/null 2>&1

trace() {
    case $1 in
        on)
            echo "$2" >"$tracing/events/kvm/kvm_mmio/filter"
            echo >"$tracing/trace"
            echo 1 >"$tracing/tracing_on"
            ;;
        off) echo 0 >"$tracing/tracing_on" ;;
        read)
            echo 0 >"$tracing/tracing_on"
            grep -E "$2" "$tracing/trace" | sed 's/^/kgen-lab: trace /'
            ;;
    esac
}

while read -r word first rest; do
    case $word in
        '') say "ready" ;;
        file) head -c "$rest" >"/job/$first" && say "took $first" ;;
        run)
            (
                eval "$first $rest" </dev/null >/tmp/said 2>&1
                status=$?
                tail -n 20 /tmp/said | while read -r line; do say "said $line"; done
                say "ended $status"
            ) &
            ;;
        trace)
            if [ -n "$tracing" ]; then
                trace "$first" "$rest" 2>/dev/null
                say "traced $first"
            else
                say "untraced $first"
            fi
            ;;
        poweroff) poweroff -f ;;
    esac
done
