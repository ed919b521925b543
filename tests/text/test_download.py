"""Downloads, from a server on this machine that behaves, and misbehaves, as servers do."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import seq2seq.text.download as download_module
from seq2seq.config import Download
from seq2seq.text.download import DataError, ensure_downloads

BODY = bytes(range(256)) * 5000  # more than one chunk
SUM = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers by the first part of the path; the server's `requests` counts what was asked for."""

    server: Server

    def do_GET(self) -> None:
        kind, _, rest = self.path.removeprefix("/").partition("/")
        self.server.requests[kind] += 1
        first = self.server.requests[kind] == 1
        if kind in ("404", "500") or (kind == "busy" and first):
            self.send_error(503 if kind == "busy" else int(kind))
        elif kind == "redirect":
            self.send_response(302)
            self.send_header("Location", rest if ":" in rest else f"/{rest}")
            self.end_headers()
        elif kind == "chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"10\r\n" + BODY[:16] + b"\r\n" + b"ff\r\n" + BODY[16:20])
        else:
            self._send_body(kind, first)

    def _send_body(self, kind: str, first: bool) -> None:
        longer = kind == "shrinks" and first
        self.send_response(200)
        if kind != "unsized":
            self.send_header("Content-Length", str(len(BODY) * (3 if longer else 1)))
        self.end_headers()
        cut = kind in ("short", "slow", "reset") or (kind == "flaky" and first)
        self.wfile.write(BODY[:1000] if cut else BODY * (2 if longer else 1))
        if kind == "slow":
            time.sleep(0.6)
        if kind == "reset":  # a close without lingering sends RST
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Servers log to standard error otherwise."""


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that give up midway are part of the tests."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download_module, "RETRY_DELAYS", (0.01, 0.01))
    monkeypatch.setattr(download_module, "TIMEOUT", 5.0)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(path: Path, url: str, sha256: str = SUM) -> list[str]:
    reports: list[str] = []
    ensure_downloads([Download(path=str(path), url=url, sha256=sha256)], reports.append)
    return reports


def fails(path: Path, url: str, *expected: str, sha256: str = SUM) -> str:
    """The message of the DataError: one line that names the file and says what is expected; nothing is left behind."""
    before = set(path.parent.iterdir()) if path.parent.is_dir() else set()
    with pytest.raises(DataError) as caught:
        fetch(path, url, sha256)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), *expected):
        assert part in message
    assert (set(path.parent.iterdir()) if path.parent.is_dir() else set()) == before
    return message


def test_an_absent_file_is_fetched_and_reported(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "train.gz"
    assert fetch(path, f"{server.url}/file", SUM.upper()) == ["downloading train.gz (1.3 MB)"]
    assert path.read_bytes() == BODY
    assert list(path.parent.iterdir()) == [path]


def test_a_file_of_unknown_size_is_fetched(server: Server, tmp_path: Path) -> None:
    assert fetch(tmp_path / "train.gz", f"{server.url}/unsized") == ["downloading train.gz"]
    assert (tmp_path / "train.gz").read_bytes() == BODY


def test_a_file_that_is_there_needs_no_network(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "train.gz"
    path.write_bytes(BODY)
    assert fetch(path, f"{server.url}/file") == []
    assert not server.requests


def test_several_files_are_fetched_in_order(server: Server, tmp_path: Path) -> None:
    names, reports = ["a", "b", "c"], list[str]()
    downloads = [Download(path=str(tmp_path / name), url=f"{server.url}/file", sha256=SUM) for name in names]
    ensure_downloads(downloads, reports.append)
    assert [report.split()[1] for report in reports] == names
    assert all((tmp_path / name).read_bytes() == BODY for name in names)


def test_a_file_that_is_there_with_another_sum_is_kept_and_told(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "train.gz"
    path.write_bytes(b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    fails(path, f"{server.url}/file", SUM, found, "delete the file")
    assert path.read_bytes() == b"something else"
    assert not server.requests


def test_a_fetched_file_with_another_sum_is_not_kept(server: Server, tmp_path: Path) -> None:
    url = f"{server.url}/file"
    fails(tmp_path / "train.gz", url, url, SUM, "0" * 64, sha256="0" * 64)
    assert server.requests["file"] == 1


@pytest.mark.parametrize(("kind", "attempts"), [("404", 1), ("500", 3)])
def test_an_answer_that_is_an_error_is_told(server: Server, tmp_path: Path, kind: str, attempts: int) -> None:
    url = f"{server.url}/{kind}"
    fails(tmp_path / "train.gz", url, url, f"HTTP {kind}", "put the file there yourself")
    assert server.requests[kind] == attempts


@pytest.mark.parametrize("kind", ["short", "reset", "chunked"])
def test_a_body_that_ends_early_is_tried_again_and_told(server: Server, tmp_path: Path, kind: str) -> None:
    url = f"{server.url}/{kind}"
    fails(tmp_path / "train.gz", url, url, "try again later")
    assert server.requests[kind] == 3


def test_a_server_that_falls_silent_is_told(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "TIMEOUT", 0.1)
    monkeypatch.setattr(download_module, "RETRY_DELAYS", ())
    url = f"{server.url}/slow"
    fails(tmp_path / "train.gz", url, url, "no answer for 0.1 s")


@pytest.mark.parametrize("kind", ["flaky", "busy", "shrinks"])
def test_what_passes_is_tried_again(server: Server, tmp_path: Path, kind: str) -> None:
    reports = fetch(tmp_path / "train.gz", f"{server.url}/{kind}")
    assert (tmp_path / "train.gz").read_bytes() == BODY
    assert [report for report in reports if "trying again" in report]
    assert server.requests[kind] == 2


def test_a_redirect_is_followed(server: Server, tmp_path: Path) -> None:
    fetch(tmp_path / "train.gz", f"{server.url}/redirect/file")
    assert (tmp_path / "train.gz").read_bytes() == BODY


@pytest.mark.parametrize("elsewhere", ["file:///etc/hostname", "ftp://127.0.0.1/file", "data:text/plain,hello"])
def test_a_redirect_off_the_web_is_refused(server: Server, tmp_path: Path, elsewhere: str) -> None:
    url = f"{server.url}/redirect/{elsewhere}"
    fails(tmp_path / "train.gz", url, url)
    assert server.requests["redirect"] == 1


def test_an_address_off_the_web_is_refused(tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(BODY)
    download = Download.model_construct(path=str(tmp_path / "train.gz"), url=local.as_uri(), sha256=SUM)
    with pytest.raises(DataError, match="only http and https"):
        ensure_downloads([download], lambda line: None)
    assert list(tmp_path.iterdir()) == [local]


def test_an_address_without_a_server_is_told(server: Server, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and not listening
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file"
        fails(tmp_path / "train.gz", url, url, "connection refused")


def test_a_name_without_an_address_is_told(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    fails(tmp_path / "train.gz", "http://corpora.invalid/file", "corpora.invalid", "address was not found")


@pytest.mark.parametrize("url", ["http://127.0.0.1:port/file", "http://127.0.0.1/a b", "http://", "http://[/file"])
def test_an_address_that_is_none_is_told(server: Server, tmp_path: Path, url: str) -> None:
    fails(tmp_path / "train.gz", url, url, "check data.downloads")


def test_a_folder_that_cannot_be_made_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    fails(tmp_path / "file" / "train.gz", f"{server.url}/file", "cannot be written")
    assert not server.requests


def test_a_folder_in_the_place_of_the_file_is_told(server: Server, tmp_path: Path) -> None:
    fails(tmp_path, f"{server.url}/file", "is a folder")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_at_the_end_is_told(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    fails(tmp_path / "train.gz", f"{server.url}/file", "no space left")


def test_a_disk_that_fills_up_midway_is_told(server: Server, tmp_path: Path) -> None:
    """A limit on the size of files, in a process of its own, stands for the full disk."""
    program = (
        "import resource, signal, sys\n"
        "from seq2seq.config import Download\n"
        "from seq2seq.text.download import DataError, ensure_downloads\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    ensure_downloads([Download(path=sys.argv[1], url=sys.argv[2], sha256=sys.argv[3])], print)\n"
        "except DataError as error:\n"
        "    sys.exit(str(error))\n"
    )
    path = tmp_path / "train.gz"
    arguments = [sys.executable, "-c", program, str(path), f"{server.url}/file", SUM]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{path}: no space left") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
