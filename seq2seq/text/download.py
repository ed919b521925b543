"""Corpus files that are fetched on first use and checked against their SHA-256 sums.

This is urllib rather than the download manager of `datasets`: that one keeps files in a cache of its own under hashed
names, does not check a sum, and reports a full disk or a short body as it finds them. What is wanted here is a file at
the path that the configuration names, whole and checked, or nothing and a sentence that says why. Proxies are those of
the environment (`http_proxy`, `https_proxy`, `no_proxy`).
"""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from seq2seq.atomic import readable_size, replacing
from seq2seq.config import DATA_PATHS, DataConfig, Download
from seq2seq.text.errors import DataError, unwritable
from seq2seq.untrusted import open_regular

__all__ = ["DataError", "downloads_in_use", "ensure_downloads"]

TIMEOUT = 30.0  # seconds without a byte
RETRY_DELAYS = (1.0, 4.0)  # seconds before the second and the third attempt
TRANSIENT_STATUS = (408, 429, 500, 502, 503, 504)
CHUNK_BYTES = 1 << 20
OWN_COPY = "put the file there yourself"


class TransientError(DataError):
    """The network failed in a way that may pass: worth another attempt."""


def downloads_in_use(data: DataConfig) -> tuple[Download, ...]:
    """Those whose file is part of the corpus: all that a run needs to go on."""
    paths = {getattr(data, name) for name in DATA_PATHS}
    return tuple(download for download in data.downloads if download.path in paths)


def ensure_downloads(downloads: Sequence[Download], report: Callable[[str], None]) -> None:
    """Makes sure that every file is at its path with its sum; fetches those that are absent.

    report: called with a line for people when a transfer starts or is tried again. A file appears at its path only
    when it is whole and its sum is right. Raises DataError, naming the file, the address and the remedy.
    """
    for download in downloads:
        path = Path(download.path)
        if os.path.exists(path):  # False, where Path.exists raises, for a folder that may not be searched
            _check_existing(path, download)
        else:
            _fetch(path, download, report)


def _check_existing(path: Path, download: Download) -> None:
    if path.is_dir():
        raise DataError(f"{path}: is a folder where a file is expected; correct its path in data.downloads")
    try:
        with open_regular(path) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from None
    if found != download.sha256.lower():
        raise DataError(
            f"{path}: its SHA-256 sum is {found}, data.downloads expects {download.sha256.lower()}; delete the file to "
            f"fetch it again, or correct the sum in the configuration"
        )


def _fetch(path: Path, download: Download, report: Callable[[str], None]) -> None:
    """Fetches a file by way of a temporary one in the same folder, so that it appears whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            with open(temporary, "wb") as file:
                found = _transfer_with_retries(file, path, download.url, report)
            if found != download.sha256.lower():
                raise DataError(
                    f"{path}: what {download.url} gave has SHA-256 sum {found}, data.downloads expects "
                    f"{download.sha256.lower()}; the file there has changed, or the sum in the configuration is wrong"
                )
    except OSError as error:  # the disk's: those of the network have become DataErrors further in
        raise unwritable(path, error) from None


def _transfer_with_retries(file: BinaryIO, path: Path, url: str, report: Callable[[str], None]) -> str:
    for delay in RETRY_DELAYS:
        try:
            return _transfer(file, path, url, report)
        except TransientError as error:
            report(f"{error}; trying again in {delay:g} s")
            time.sleep(delay)
        file.seek(0)
        file.truncate()
    return _transfer(file, path, url, report)


def _transfer(file: BinaryIO, path: Path, url: str, report: Callable[[str], None]) -> str:
    """Writes what the address gives into an empty file; returns its SHA-256 sum.

    Raises DataError for the network's errors and OSError for the disk's.
    """
    digest, received = hashlib.sha256(), 0
    try:
        response = _open(url)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _network_error(error, path, url) from None
    with response:
        size = response.length  # None where the server does not say
        report(f"downloading {path.name}" + (f" ({readable_size(size)})" if size is not None else ""))
        while True:
            try:
                chunk = response.read(CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise _network_error(error, path, url) from None
            if not chunk:
                break
            file.write(chunk)
            digest.update(chunk)
            received += len(chunk)
    if size is not None and received < size:  # http.client says nothing when a body ends early
        raise TransientError(
            f"{path}: {url} broke off after {received:,} of {size:,} bytes; try again later, or {OWN_COPY}"
        )
    return digest.hexdigest()


def _open(url: str) -> http.client.HTTPResponse:
    """Opens a web address. Only http and https have a handler, so that a redirect cannot lead to a file or to ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    if urlsplit(url).scheme.lower() not in ("http", "https"):
        raise ValueError("only http and https addresses are fetched")
    # Some servers turn away urllib's own name.
    request = urllib.request.Request(url, headers={"User-Agent": "seq2seq"})
    response = opener.open(request, timeout=TIMEOUT)
    assert isinstance(response, http.client.HTTPResponse)
    return response


def _network_error(error: Exception, path: Path, url: str) -> DataError:
    """The DataError for a failed request, a TransientError if another attempt may help."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    kind, remedy = DataError, f"check data.downloads, or {OWN_COPY}"
    if isinstance(error, urllib.error.HTTPError):
        what = f"HTTP {error.code} {error.reason}"
        if error.code in TRANSIENT_STATUS:
            kind, remedy = TransientError, f"try again later, or {OWN_COPY}"
        error.close()
    elif isinstance(reason, TimeoutError):
        kind, what, remedy = TransientError, f"no answer for {TIMEOUT:g} s", f"check the network, or {OWN_COPY}"
    elif isinstance(reason, ConnectionRefusedError):
        what, remedy = "connection refused", f"check the address, the network and the proxy, or {OWN_COPY}"
    elif isinstance(reason, ssl.SSLCertVerificationError):
        what = f"its certificate is not valid ({reason.verify_message})"
    elif isinstance(reason, socket.gaierror):
        kind = TransientError if reason.errno == socket.EAI_AGAIN else DataError
        what, remedy = "its address was not found", f"check the address and the network, or {OWN_COPY}"
    elif isinstance(reason, OSError | http.client.IncompleteRead | http.client.RemoteDisconnected):
        kind, what, remedy = TransientError, f"connection lost ({reason})", f"try again later, or {OWN_COPY}"
    else:
        what = str(reason)
    return kind(f"{path}: cannot be fetched from {url}: {' '.join(what.split())}; {remedy}")
