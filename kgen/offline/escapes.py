"""How tools escape characters, and how each form is undone.

A decoder is a guess about one line. The line's checksum decides whether the guess is right.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass

#: Characters that web pages and word processors put in, and what the guest printed in their place.
_TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000", " "),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032", "'"),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),
        **dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff", ""),
    }
)
#: Text that was encoded more times than this is left as it is.
_DEPTH = 3
_LETTERS = {"t": "\t", "r": "\r", "n": "\n", "b": "", "f": "", "a": "", "e": "", "v": "", "0": ""}
_BACKSLASH = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|([0-3][0-7]{2})|([trnbfaev0])|([\"'\\/{}\[\]:]))")
_HASH = re.compile(r"#([0-3][0-7]{2})")
_CARET = re.compile(r"\^([@-_?])")
_QUOTED_PRINTABLE = re.compile(r"=([0-9A-Fa-f]{2})")
_PERCENT = re.compile(r"%([0-9A-Fa-f]{2})")
_NAMED = re.compile(r"<(?:U\+)?(?:00)?([0-9A-Fa-f]{2})>|\[0x([0-9A-Fa-f]{2})\]|<(TAB|HT|CR|LF|ESC|NUL)>", re.IGNORECASE)
_NAMES = {"TAB": "\t", "HT": "\t", "CR": "\r", "LF": "\n", "ESC": "", "NUL": ""}
#: U+2400 to U+241F are pictures of control characters, U+2424 is that of a new line; here as bytes of UTF-8.
_PICTURE = re.compile("\u00e2\u0090([\u0080-\u009f\u00a4])")


@dataclass(frozen=True)
class Decoder:
    """One form. ``name`` describes it for people; ``sign`` matches text that may be in this form."""

    name: str
    sign: re.Pattern[str]
    undo: Callable[[str], str]


def as_bytes(text: str) -> str:
    """Return the UTF-8 of a text as one character a byte, the form in which a capture is kept."""
    return text.encode("utf-8", "replace").decode("latin-1")


def _web(text: str) -> str:
    data = text.encode("latin-1", "replace")
    try:
        found = data.decode("utf-8")
    except UnicodeDecodeError:
        found = data.decode("cp1252", "replace")
    for _ in range(_DEPTH):
        found, before = html.unescape(found), found
        if found == before:
            break
    return as_bytes(found.translate(_TYPOGRAPHY))


def _backslash(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        unicode, byte, octal, letter, itself = match.groups()
        if unicode or byte:
            return as_bytes(chr(int(unicode, 16))) if unicode else chr(int(byte, 16))
        if octal:
            return chr(int(octal, 8))
        return _LETTERS[letter] if letter else str(itself)

    return _BACKSLASH.sub(character, text)


def _twice(text: str) -> str:
    return _backslash(_backslash(text))


def _hash(text: str) -> str:
    return _HASH.sub(lambda match: chr(int(match[1], 8)), text)


def _caret(text: str) -> str:
    return _CARET.sub(lambda match: chr(ord(match[1]) ^ 0x40), text)


def _hexadecimal(pattern: re.Pattern[str]) -> Callable[[str], str]:
    return lambda text: pattern.sub(lambda match: chr(int(match[1], 16)), text)


def _named(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        return _NAMES[match[3].upper()] if match[3] else chr(int(match[1] or match[2], 16))

    return _NAMED.sub(character, text)


def _pictures(text: str) -> str:
    return _PICTURE.sub(lambda match: "\n" if match[1] == "\u00a4" else chr(ord(match[1]) - 0x80), text)


#: In the order in which they are tried.
DECODERS = (
    Decoder('as in JSON and C: \\t, \\x09, \\"', _BACKSLASH, _backslash),
    Decoder('as in JSON within JSON: \\\\t, \\\\\\"', re.compile(r"\\\\"), _twice),
    Decoder("as of web pages: &quot;, no-break spaces, typographic quotes", re.compile(r"&|[^\x00-\x7f]"), _web),
    Decoder("as by rsyslog: #011", _HASH, _hash),
    Decoder("as by cat -v: ^I", _CARET, _caret),
    Decoder("quoted-printable, as in mails: =3D", _QUOTED_PRINTABLE, _hexadecimal(_QUOTED_PRINTABLE)),
    Decoder("as in URLs: %20", _PERCENT, _hexadecimal(_PERCENT)),
    Decoder("by their names: <09>, <TAB>", _NAMED, _named),
    Decoder("as pictures of control characters, as by labgrid", _PICTURE, _pictures),
)
