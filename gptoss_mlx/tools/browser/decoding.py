"""Bytes of a page -> text: by its byte order mark, its header, its own declaration, or a guess."""

from __future__ import annotations

import codecs
import re

__all__ = ["decode"]

_DECLARED = re.compile(rb"(?:charset|encoding)\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Python knows codecs that no page is in, some of them slow or able to raise anything.
_NO_CHARSETS = ("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7")


def decode(body: bytes, charset: str | None = None) -> str:
    """The text of a body; `charset` is what its header said. What cannot be read becomes U+FFFD."""
    for mark, codec in _BOMS:
        if body.startswith(mark):
            return body.decode(codec, "replace")
    for name in (charset, _declared(body)):
        if name and (codec := _codec(name)):
            return body.decode(codec, "replace")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return body.decode("cp1252", "replace")


def _declared(body: bytes) -> str | None:
    match = _DECLARED.search(body, 0, 4_096)
    name = match[1].decode("ascii") if match else ""
    # What was found as ASCII is not UTF-16 or UTF-32, whatever it says of itself.
    return None if name.lower().startswith(("utf-16", "utf-32", "utf16", "ucs")) else name


def _codec(name: str) -> str | None:
    """Python's codec for a charset's name, as the web means it; None where there is none."""
    try:
        codec = codecs.lookup(name.strip("\"' ")).name
        "".encode(codec)  # refuses codecs that do not make bytes of text
    except (LookupError, ValueError):
        return None
    if codec.replace("_", "-") in _NO_CHARSETS:
        return None
    # The web's Latin-1 is Windows-1252.
    return {"iso8859-1": "cp1252", "ascii": "cp1252"}.get(codec, codec)
