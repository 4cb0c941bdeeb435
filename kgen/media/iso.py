"""CD image: the same bytes as the raw disk image, which is an ISO 9660 file system as well."""

from __future__ import annotations

from kgen.media import ImageFormat
from kgen.media.img import write_disk

FORMAT = ImageFormat(name="iso", suffix=".iso", summary="the same bytes as img, for CD drives", write=write_disk)
