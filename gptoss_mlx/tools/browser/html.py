"""HTML -> the text and the links of a page.

lxml repairs the markup, whatever it is; scripts, styles and attributes go, links become marks, and
html2text lays out what is left. Bounded in the number of elements and in the depth of lists, which
is what costs time and space. It does not know the network, nor how a page is shown.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import html2text

from gptoss_mlx.tools.browser.page import MAX_TEXT, LinkTable, clean, one_line

__all__ = ["html_title", "render_html"]

etree: Any = import_module("lxml.etree")  # compiled, and without types
_MAX_ELEMENTS = 100_000  # html2text lays out some 30,000 a second
_MAX_NESTING = 8  # lists and quotes in each other: each level indents every line
_HIDDEN = ("script", "style", "noscript", "template", "iframe", "svg", "object", "head", "select")
_INLINE = ("span", "b", "strong", "i", "em", "u", "font", "small", "mark", "label", "ins")
_RAW = ("xmp", "plaintext", "listing")  # their text would be read as markup: shown as `pre`
_NESTING = ("ul", "ol", "blockquote")
_PROTECTED = {ord("<"): "\ue000", ord(">"): "\ue001", ord("&"): "\ue002"}
_UNPROTECTED = {0xE000: "<", 0xE001: ">", 0xE002: "&"}
_NO_PRIVATE = dict.fromkeys(_UNPROTECTED)
_TAG = re.compile(r"<[^<>]{0,2000}>")
_BLANKS = re.compile(r"\n(?:[^\S\n]*\n)+")


class _Layout(html2text.HTML2Text):
    """html2text, set to the layout that the models were trained with: bare text, unescaped."""

    def __init__(self) -> None:
        super().__init__(bodywidth=0)
        self.ignore_links = True
        self.ignore_images = True
        self.ignore_emphasis = True
        self.ignore_tables = True  # cells are separated in `_lay_out_cell`
        self.unicode_snob = True

    def handle_data(self, data: str, entity_char: bool = False) -> None:  # noqa: ARG002
        """Take text as it is: html2text escapes only what is no entity."""
        super().handle_data(data, entity_char=True)


def render_html(html: str, table: LinkTable) -> str:
    """The text of HTML, its links added to the table; broken markup is repaired, never refused."""
    root = _parsed(html)
    if root is None:  # nested too deeply for the parser: the words without their layout
        return clean(_TAG.sub(" ", html)).strip()
    _simplify(root, table)
    text = _Layout().handle(etree.tostring(root, encoding="unicode", method="xml"))
    return _BLANKS.sub("\n\n", text.translate(_UNPROTECTED)).strip()


def html_title(html: str) -> str:
    """The text of the first `<title>`, or nothing."""
    match = re.search(r"<title(?:\s[^>]{0,500})?>([^<]{0,2000})", html[:200_000], re.IGNORECASE)
    return one_line(html2text.HTML2Text(bodywidth=0).handle(match[1]), 200) if match else ""


def _parsed(html: str) -> Any:
    """The tree of some markup; None where it is nested beyond what libxml2 takes."""
    parser = etree.HTMLParser(
        encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True
    )
    root = etree.fromstring(html.encode("utf-8", "replace").replace(b"\0", b""), parser)
    if any("Excessive depth" in entry.message for entry in parser.error_log):
        return None
    return etree.fromstring(b"<p/>", parser) if root is None else root


def _simplify(root: Any, table: LinkTable) -> None:
    """Leave nothing in a tree but what html2text is to lay out."""
    etree.strip_elements(root, *_HIDDEN, with_tail=False)
    _cut(root)
    etree.strip_tags(root, *_INLINE)
    for element in root.iter():
        element.text = _protected(element.text)
        element.tail = _protected(element.tail)
    for element in list(root.iter("a")):
        _mark_link(element, table)
    for index, element in enumerate(list(root.iter("img"))):
        words = one_line(element.get("alt") or element.get("title") or "", 200)
        _replace(element, _protected(f"[Image {index}: {words}]" if words else f"[Image {index}]"))
    for element in list(root.iter("math")):
        _replace(element, _protected(one_line(element.get("alttext") or "")))
    etree.strip_tags(root, "a", "span")
    _lay_out(root)


def _cut(root: Any) -> None:
    """Drop what is beyond the limits on elements and text."""
    size = 0
    for index, element in enumerate(root.iter()):
        size += len(element.text or "") + len(element.tail or "")
        if index >= _MAX_ELEMENTS or size > MAX_TEXT:
            _drop_rest(root, element)
            break


def _drop_rest(root: Any, element: Any) -> None:
    """Drop what comes after an element's own text."""
    del element[:]
    while (parent := element.getparent()) is not None:
        del parent[parent.index(element) + 1 :]
        element.tail = None
        element = parent
    etree.SubElement(root, "p").text = "[... the rest of the page is left out ...]"


def _protected(text: str | None) -> str | None:
    """Clean text without a character that would be spelled as an entity: those are slow."""
    return clean(text.translate(_NO_PRIVATE)).translate(_PROTECTED) if text else text


def _mark_link(element: Any, table: LinkTable) -> None:
    """Put a link's mark in its place; images and anchors of the page itself stay as they are."""
    target = element.get("href") or "#"
    if target.startswith("#"):
        return
    if mark := table.mark(target, " ".join(element.itertext())):
        _replace(element, mark)


def _replace(element: Any, text: str | None) -> None:
    """Make an element a bare piece of text; what follows it stays."""
    tail = element.tail
    element.clear()
    element.tag, element.text, element.tail = "span", text, tail


def _lay_out(root: Any) -> None:
    """Set what html2text would get wrong."""
    nesting = 0
    for event, element in etree.iterwalk(root, events=("start", "end")):
        if element.tag in _NESTING or (event == "end" and element.get("nested")):
            nesting += 1 if event == "start" else -1
        if event == "start":
            _lay_out_element(element, nesting)


def _lay_out_element(element: Any, nesting: int) -> None:
    start = element.get("start") if element.tag == "ol" else None
    element.attrib.clear()
    if start and start.isdecimal() and len(start) < 7:
        element.set("start", start)
    if element.tag in _NESTING and nesting > _MAX_NESTING:
        element.tag = "div"
        element.set("nested", "1")
    elif element.tag in ("td", "th") and element.getprevious() is not None:
        element.text = f" | {element.text or ''}"
    elif element.tag in ("sup", "sub") and len(element) == 0 and (element.text or "").isalnum():
        element.text = f"{'^' if element.tag == 'sup' else '_'}{{{element.text}}}"
    elif element.tag in _RAW:
        element.tag = "pre"
