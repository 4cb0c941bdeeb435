"""qcow2, version 3 (QEMU, docs/interop/qcow2.txt): 64 KiB clusters, 16-bit reference counts, nothing optional.

Clusters of the file: header, refcount table, the one refcount block, L1 table, the one L2 table, then the disk's
clusters in use. One refcount block serves 2 GiB of file and one L2 table 512 MiB of disk.
"""

from __future__ import annotations

import ctypes
import struct

from kgen.media._container import Disk, Stored, container
from kgen.media.img import DISK_BYTES

CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
_REFCOUNT_ORDER = 4  # the logarithm of a count's width in bits
_COPIED = 1 << 63  # the reference count is exactly one: may be written in place
_REFCOUNT_TABLE, _REFCOUNT_BLOCK, _L1, _L2, _DATA = (number * CLUSTER for number in range(1, 6))
_DISK_CLUSTERS = DISK_BYTES // CLUSTER


class _Header(ctypes.BigEndianStructure):
    _fields_ = (
        ("magic", ctypes.c_ubyte * 4),
        ("version", ctypes.c_uint32),
        ("backing_file_offset", ctypes.c_uint64),
        ("backing_file_size", ctypes.c_uint32),
        ("cluster_bits", ctypes.c_uint32),
        ("size", ctypes.c_uint64),
        ("crypt_method", ctypes.c_uint32),
        ("l1_size", ctypes.c_uint32),
        ("l1_table_offset", ctypes.c_uint64),
        ("refcount_table_offset", ctypes.c_uint64),
        ("refcount_table_clusters", ctypes.c_uint32),
        ("nb_snapshots", ctypes.c_uint32),
        ("snapshots_offset", ctypes.c_uint64),
        ("incompatible_features", ctypes.c_uint64),
        ("compatible_features", ctypes.c_uint64),
        ("autoclear_features", ctypes.c_uint64),
        ("refcount_order", ctypes.c_uint32),
        ("header_length", ctypes.c_uint32),
        # Not of the header: the end of the header extensions, of which there are none.
        ("extension_end", ctypes.c_uint64),
    )


def contain(disk: Disk, file_name: str) -> Stored:
    """Return the disk as a qcow2 image."""
    packed = disk.packed(CLUSTER, _DATA)
    place = {cluster: _DATA + k * CLUSTER for k, cluster in enumerate(packed.blocks)}
    header = _Header(
        magic=(ctypes.c_ubyte * 4)(*b"QFI\xfb"),
        version=3,
        cluster_bits=CLUSTER_BITS,
        size=DISK_BYTES,
        l1_size=1,
        l1_table_offset=_L1,
        refcount_table_offset=_REFCOUNT_TABLE,
        refcount_table_clusters=1,
        refcount_order=_REFCOUNT_ORDER,
        header_length=_Header.extension_end.offset,
    )
    entries = (place[cluster] | _COPIED if cluster in place else 0 for cluster in range(_DISK_CLUSTERS))
    extents = (
        (0, bytes(header)),
        (_REFCOUNT_TABLE, struct.pack(">Q", _REFCOUNT_BLOCK)),
        (_REFCOUNT_BLOCK, struct.pack(">H", 1) * (packed.end // CLUSTER)),
        (_L1, struct.pack(">Q", _L2 | _COPIED)),
        (_L2, struct.pack(f">{_DISK_CLUSTERS}Q", *entries)),
        *packed.extents,
    )
    return Stored(extents, packed.end)


# One L2 table and one refcount block are enough, even for a full disk.
assert _DISK_CLUSTERS <= CLUSTER // 8
assert _DISK_CLUSTERS + _DATA // CLUSTER <= CLUSTER * 8 >> _REFCOUNT_ORDER

FORMAT = container("qcow2", ".qcow2", "qcow2 version 3: QEMU, libvirt, Proxmox VE, OpenStack, UTM", contain)
