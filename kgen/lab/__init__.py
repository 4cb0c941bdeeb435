"""The lab: a Linux with KVM inside QEMU's translator, so that KVM's behaviour can be seen where there is no /dev/kvm.

QEMU/TCG emulates AMD's SVM for its guest. A stock kernel's ``kvm_amd`` runs in that guest, and on that KVM a stock QEMU
runs kgen's kernel. "Outer" is the QEMU on this host, "inner" is what runs in the lab's Linux.
"""
