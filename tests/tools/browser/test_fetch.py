"""Fetching over HTTP: what comes back, and every limit."""

from __future__ import annotations

import gzip
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.browser.fetch import Fetcher, Limits
from tools.browser.server import Handler, serving

HTML = "text/html; charset=utf-8"
# For oslo.test, signed by itself, valid for a hundred years; its key protects nothing.
PEM = Path(__file__).parent / "pages" / "tls" / "oslo.test.pem"


def _page(body: bytes = b"<p>rain</p>", **headers: str) -> Callable[[Handler], None]:
    headers = {"content_type": HTML, **headers}
    return lambda handler: handler.reply(body, 200, **headers)


def _redirect(location: str, status: int = 302) -> Callable[[Handler], None]:
    return lambda handler: handler.reply(b"", status=status, location=location)


def _local(limits: Limits | None = None) -> Fetcher:
    """A fetcher for the server of a test."""
    return Fetcher(limits, is_allowed=lambda _: True)


def _to(*answers: str) -> Callable[[str, int], Sequence[str]]:
    """A resolver that gives one answer after the other, then repeats the last."""
    left = list(answers)
    return lambda _host, _port: [left.pop(0) if len(left) > 1 else left[0]]


def test_a_page() -> None:
    """A page comes with its text and type; the request names the program and sends no cookie."""
    with serving({"/a": _page("<p>Regn på øya</p>".encode())}) as server:
        document = _local().fetch(server.url("/a?q=1#part"))
    assert (document.text, document.media_type) == ("<p>Regn på øya</p>", "text/html")
    assert document.url.startswith(server.url("/a?q=1"))
    request, headers, _ = server.requests[0]
    assert request == "GET /a?q=1"
    assert headers["User-Agent"].startswith("gptoss-mlx")
    assert headers["Host"] == f"127.0.0.1:{server.port}"


def test_redirects_are_followed_without_cookies() -> None:
    """The document's URL is where the redirects end; a cookie of the way is not sent on."""

    def first(handler: Handler) -> None:
        handler.reply(b"", status=301, location="../b", set_cookie="id=1; Path=/")

    with serving({"/x/a": first, "/b": _page()}) as server:
        assert _local().fetch(server.url("/x/a")).url == server.url("/b")
        assert all("Cookie" not in headers for _, headers, _ in server.requests)


@pytest.mark.parametrize(("hops", "arrives"), [(5, True), (6, False)])
def test_five_redirects(hops: int, arrives: bool) -> None:
    """Five redirects are followed, a sixth is not; so a loop ends."""
    routes = {f"/{i}": _redirect(f"/{i + 1}") for i in range(hops)} | {f"/{hops}": _page()}
    with serving(routes) as server:
        if arrives:
            assert "rain" in _local().fetch(server.url("/0")).text
        else:
            with pytest.raises(ToolError, match="more than 5 times"):
                _local().fetch(server.url("/0"))


def test_a_redirect_loop() -> None:
    """A page that redirects to itself is asked six times."""
    with serving({"/loop": _redirect("/loop")}) as server:
        with pytest.raises(ToolError, match="redirects more than"):
            _local().fetch(server.url("/loop"))
        assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("file:///etc/passwd", "neither http nor https"),
        ("ftp://example.com/", "neither http nor https"),
        ("http://user:secret@example.com/", "user name or a password"),
        ("http://[::1", "no URL"),
    ],
)
def test_bad_redirects(location: str, message: str) -> None:
    """A redirect leads nowhere that a URL may not."""
    with (
        serving({"/a": _redirect(location)}) as server,
        pytest.raises(ToolError, match=message) as caught,
    ):
        _local().fetch(server.url("/a"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost:8000/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0.0.0.0/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest/meta-data/",
        "https://192.168.1.1/",
    ],
)
def test_private_addresses_are_refused(url: str) -> None:
    """However an address is spelled, it is the resolved one that counts."""
    with pytest.raises(ToolError, match=r"public internet|no URL|no host"):
        Fetcher(Limits(seconds=5)).fetch(url)


def _only_local(address: str) -> bool:
    """What stands for the public internet here."""
    return address == "127.0.0.1"


def test_a_redirect_to_a_private_address() -> None:
    """Each hop is checked: a public page cannot send the browser home."""
    names = {"public.test": "127.0.0.1", "router.test": "10.0.0.7"}
    fetcher = Fetcher(is_allowed=_only_local, resolve=lambda host, _: [names[host]])
    with serving({"/a": _redirect("http://router.test/admin")}) as server:
        with pytest.raises(ToolError, match=r"router.test is not on the public internet"):
            fetcher.fetch(f"http://public.test:{server.port}/a")
        assert len(server.requests) == 1


def test_a_name_that_answers_differently_the_second_time() -> None:
    """A name is resolved once for a connection, which goes to the address that was checked."""
    with serving({"/a": _page(), "/b": _redirect("/a")}) as server:
        fetcher = Fetcher(is_allowed=_only_local, resolve=_to("127.0.0.1", "10.0.0.7"))
        assert fetcher.fetch(f"http://rebinding.test:{server.port}/a").text == "<p>rain</p>"
        fetcher = Fetcher(is_allowed=_only_local, resolve=_to("127.0.0.1", "10.0.0.7"))
        with pytest.raises(ToolError, match="public internet"):
            fetcher.fetch(f"http://rebinding.test:{server.port}/b")


def test_private_addresses_among_public_ones_are_passed_over() -> None:
    """Of several addresses only the allowed ones are tried, one after the other."""
    with serving({"/a": _page()}) as server:
        fetcher = Fetcher(
            is_allowed=lambda address: address.startswith("127."),
            resolve=lambda _host, _port: ["10.0.0.7", "127.1.2.3", "127.0.0.1"],
        )
        assert fetcher.fetch(f"http://many.test:{server.port}/a").text == "<p>rain</p>"


def test_tls_verifies_the_name_and_not_the_address() -> None:
    """The connection goes to an address, the certificate must be the name's."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(PEM)
    client_side = ssl.create_default_context(cafile=str(PEM))
    fetcher = Fetcher(is_allowed=_only_local, resolve=_to("127.0.0.1"), ssl_context=client_side)
    with serving({"/a": _page()}, server_side) as server:
        assert fetcher.fetch(f"https://oslo.test:{server.port}/a").text == "<p>rain</p>"
        with pytest.raises(ToolError, match=r"cannot be reached.*(?i:certificate)"):
            fetcher.fetch(f"https://other.test:{server.port}/a")
        with pytest.raises(ToolError, match=r"cannot be reached.*(?i:certificate)"):
            _local().fetch(f"https://127.0.0.1:{server.port}/a")


def _dribble(handler: Handler) -> None:
    """Ten bytes a second, for as long as somebody listens (or 10 s)."""
    handler.send_response(200)
    handler.send_header("Content-Type", HTML)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"x")
        time.sleep(0.1)


def _dribble_headers(handler: Handler) -> None:
    for i in range(100):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n"[i : i + 1] or b"X")
        time.sleep(0.1)


@pytest.mark.parametrize("route", [_dribble, _dribble_headers])
def test_a_dribbling_server(route: Callable[[Handler], None]) -> None:
    """The time limit is of the whole page, however steadily it drips."""
    with serving({"/slow": route}) as server:
        began = time.monotonic()
        with pytest.raises(ToolError, match=r"longer than 0\.5 s"):
            _local(Limits(seconds=0.5)).fetch(server.url("/slow"))
        assert time.monotonic() - began < 2
        assert server.cut_off.wait(5)


def test_a_stopped_fetch() -> None:
    """Once `stop` is set a fetch ends within a second, and the connection with it."""
    stop = threading.Event()
    with serving({"/slow": _dribble}) as server:
        timer = threading.Timer(0.3, stop.set)
        timer.start()
        began = time.monotonic()
        with pytest.raises(ToolError, match="stopped"):
            _local().fetch(server.url("/slow"), stop)
        assert time.monotonic() - began < 1.5
        assert server.cut_off.wait(5)
        timer.join()


def test_a_body_of_100_mb() -> None:
    """No more than the limit is read of a body that says no length."""

    def route(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", HTML)
        handler.end_headers()
        for _ in range(1_600):
            handler.wfile.write(b"x" * 65_536)

    with serving({"/big": route}) as server:
        with pytest.raises(ToolError, match="larger than 5 MB"):
            _local().fetch(server.url("/big"))
        assert server.cut_off.wait(5)  # it could not send all of it


@pytest.mark.parametrize("layers", [1, 2])
def test_a_gzip_bomb(layers: int) -> None:
    """The limit is on what a body unpacks to, in one layer of compression or in two."""
    body = b"\0" * 50_000_000
    for _ in range(layers):
        body = gzip.compress(body, 6)
    route = _page(body, content_encoding=", ".join(["gzip"] * layers))
    with (
        serving({"/bomb": route}) as server,
        pytest.raises(ToolError, match="larger than 5 MB"),
    ):
        _local().fetch(server.url("/bomb"))


def test_compressed_pages() -> None:
    """A compressed page is unpacked; one that says so falsely is an error."""
    good = _page(gzip.compress(b"<p>rain</p>"), content_encoding="gzip")
    bad = _page(b"<p>rain</p>", content_encoding="gzip")
    with serving({"/good": good, "/bad": bad}) as server:
        assert _local().fetch(server.url("/good")).text == "<p>rain</p>"
        with pytest.raises(ToolError, match="cannot be reached"):
            _local().fetch(server.url("/bad"))


@pytest.mark.parametrize("kind", ["application/pdf", "image/png", "application/zip", "video/mp4"])
def test_wrong_content_types(kind: str) -> None:
    """What is no text is refused by its name."""
    with (
        serving({"/a": _page(b"%PDF", content_type=kind)}) as server,
        pytest.raises(ToolError, match=f"is {kind}: only text"),
    ):
        _local().fetch(server.url("/a"))


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/json", "application/ld+json", "image/svg+xml", "text/csv"]
)
def test_right_content_types(kind: str) -> None:
    """Text, JSON and XML come as they are."""
    with serving({"/a": _page(b"1,2", content_type=f"{kind}; charset=utf-8")}) as server:
        assert _local().fetch(server.url("/a")).media_type == kind


@pytest.mark.parametrize(
    ("body", "media_type"),
    [(b"  <!DOCTYPE html><p>x", "text/html"), (b"plain < text", "text/plain")],
)
def test_a_missing_content_type(body: bytes, media_type: str) -> None:
    """Without a type a body is HTML where it begins like HTML, otherwise text."""
    with serving({"/a": lambda handler: handler.reply(body)}) as server:
        assert _local().fetch(server.url("/a")).media_type == media_type


def test_bytes_that_are_no_text() -> None:
    """A null byte at the start gives away what is no text, whatever the server calls it."""
    with (
        serving({"/a": _page(b"\x7fELF\0\0\0")}) as server,
        pytest.raises(ToolError, match="no text"),
    ):
        _local().fetch(server.url("/a"))


def test_a_page_in_latin_1() -> None:
    """The header's charset decides."""
    route = _page("Tromsø".encode("latin-1"), content_type="text/html; charset=iso-8859-1")
    with serving({"/a": route}) as server:
        assert _local().fetch(server.url("/a")).text == "Tromsø"


@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
def test_error_pages(status: int) -> None:
    """The status is told, the error's page is not read."""
    with (
        serving({"/a": lambda handler: handler.reply(b"secret", status=status)}) as server,
        pytest.raises(ToolError, match=f"HTTP {status}") as caught,
    ):
        _local().fetch(server.url("/a"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc/passwd", "neither http nor https"),
        ("javascript://alert(1)", "neither http nor https"),
        ("http://user@example.com/", "user name"),
        ("http://", "no host|no URL"),
        ("http://[::1", "no URL"),
        ("http://example.com:99999/", "no URL"),
        ("https://" + "a" * 300 + ".test/", "no URL|no host"),
        ("http://nowhere.invalid/", "there is no host 'nowhere.invalid'"),
        ("two words", "no URL|no host"),
        ("\x1b[31m.test", "no URL|no host"),
    ],
)
def test_bad_urls(url: str, message: str) -> None:
    """What cannot be fetched is a sentence without control characters."""

    def nowhere(_host: str, _port: int) -> list[str]:
        raise OSError

    with pytest.raises(ToolError, match=message) as caught:
        Fetcher(resolve=nowhere).fetch(url)
    assert str(caught.value).isprintable()


def test_broken_servers() -> None:
    """Refused connections and answers that are no HTTP are sentences, too."""

    def nonsense(handler: Handler) -> None:
        handler.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")

    def short(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort")

    with serving({"/nonsense": nonsense, "/short": short}) as server:
        for path in ("/nonsense", "/short"):
            with pytest.raises(ToolError, match="cannot be reached"):
                _local().fetch(server.url(path))
        gone = server.url("/")
    with pytest.raises(ToolError, match="cannot be reached"):
        _local().fetch(gone)


def test_the_environments_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would resolve names out of reach of the check."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    with serving({"/a": _page()}) as server:
        assert _local().fetch(server.url("/a")).text == "<p>rain</p>"
