"""What is read of a machine that stands still, in pieces of one size: each costs time, so each is read once."""

from __future__ import annotations

from collections.abc import Callable


class Pieces:
    """``fetch`` returns so many bytes from a place on, a multiple of ``size``; fewer only where there are no more."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch = fetch
        self._size = size
        self._known: dict[int, bytes] = {}

    def read(self, begin: int, length: int) -> bytes:
        """Return the bytes from there on, fewer where there are no more. Raises what ``fetch`` raises."""
        size, end = self._size, begin + length
        first, last = begin // size, (end - 1) // size
        missing = [number for number in range(first, last + 1) if number not in self._known]
        if missing:
            start = missing[0]
            data = self._fetch(start * size, (missing[-1] + 1 - start) * size)
            self._known |= {start + at // size: data[at : at + size] for at in range(0, len(data), size)}
        whole = b"".join(self._known.get(number, b"") for number in range(first, last + 1))
        return whole[begin - first * size : end - first * size]

    def forget(self) -> None:
        """Forget what was read: the machine runs again."""
        self._known = {}
