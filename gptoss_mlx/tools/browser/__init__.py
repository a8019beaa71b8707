"""The browser that the models were trained with: search, open, find, and citations.

    tool.py        calls and the stack of pages
    arguments.py   what a call says
    page.py        a page: lines and links
    documents.py   documents, results and hits -> pages
    html.py        HTML -> text
    display.py     the view that the model reads
    citations.py   what the model cites -> links
    backends.py    what a backend is; which ones there are
    services.py    ddgs, exa, you
    folder.py      a local folder of pages
    fetch.py       one page over HTTP, with limits
    addresses.py   what is on the public internet
    decoding.py    bytes -> text
    worker.py      bounded waiting

Importing it is quick: HTTP and HTML libraries are imported when they are needed.
"""

from gptoss_mlx.tools.browser.backends import BACKENDS, Backend, make_backend
from gptoss_mlx.tools.browser.citations import Citation, CitationFilter, cite
from gptoss_mlx.tools.browser.tool import BrowserTool

__all__ = [
    "BACKENDS",
    "Backend",
    "BrowserTool",
    "Citation",
    "CitationFilter",
    "cite",
    "make_backend",
]
