"""Bytes -> text."""

from __future__ import annotations

import codecs
import random

import pytest

from gptoss_mlx.tools.browser.decoding import decode

WORD = "Tromsø"


@pytest.mark.parametrize(
    ("body", "charset"),
    [
        (WORD.encode(), None),
        (WORD.encode("latin-1"), None),  # a guess: not UTF-8, so Windows-1252
        (WORD.encode("latin-1"), "ISO-8859-1"),
        (WORD.encode("utf-16"), None),  # its byte order mark says so
        (codecs.BOM_UTF8 + WORD.encode(), "iso-8859-1"),  # the mark goes before the header
        (WORD.encode("utf-16-le"), "utf-16le"),
        (WORD.encode(), "no-such-charset"),
        (WORD.encode(), "unicode_escape"),
        (WORD.encode(), "zlib"),
        (WORD.encode(), "idna"),
        (WORD.encode(), "\0"),
        (WORD.encode(), '"UTF-8"'),
    ],
)
def test_charsets(body: bytes, charset: str | None) -> None:
    """The mark, the header, then a guess; charsets that no page is in are passed over."""
    assert decode(body, charset) == WORD


@pytest.mark.parametrize(
    ("declaration", "codec"),
    [
        ('<meta charset="windows-1251">', "cp1251"),
        ("<meta http-equiv=Content-Type content='text/html; charset=Shift_JIS'>", "shift_jis"),
        ('<?xml version="1.0" encoding="koi8-r"?>', "koi8-r"),
        ('<meta charset="utf-16">', "utf-8"),  # it was read as ASCII, so it is not
    ],
)
def test_declarations(declaration: str, codec: str) -> None:
    """A page's own declaration is believed where the header says nothing."""
    word = "дождь" if codec != "shift_jis" else "雨"
    assert decode((declaration + word).encode(codec)) == declaration + word


def test_any_bytes() -> None:
    """Whatever the bytes and the charset, there is a text."""
    random.seed(1)
    for _ in range(500):
        body = random.randbytes(random.randrange(60))
        name = random.choice([None, "utf-8", "big5", "iso-2022-jp", "hz", "utf-32", "x"])
        assert isinstance(decode(body, name), str)
