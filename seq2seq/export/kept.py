"""The CTranslate2 export that is kept beside a run, RUN/exports/ctranslate2-QUANTIZATION, and made on first use.

Where it is there already, torch is never imported.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seq2seq.atomic import is_litter
from seq2seq.errors import UserError
from seq2seq.export.errors import ExportError, UnwritableExportError
from seq2seq.export.folder import CERTIFICATE, check_free, check_place
from seq2seq.export.light import FORMAT_VERSION, LightRun, check_quantization, read_certificate, sha256_of
from seq2seq.export.packages import need_ctranslate2
from seq2seq.untrusted import check_links

EXPORTS = "exports"
CERTIFY_SENTENCES = 50  # enough to see a wrong export; `seq2seq export` takes more


def ensure_export(run: LightRun, quantization: str, warn: Callable[[str], None]) -> Path:
    """The folder of the run's export, which is made where there is none of these weights and this configuration.

    It is tried on made-up sentences: translating reads nothing outside of the run, and its validation set is elsewhere.
    """
    check_quantization(quantization)
    need_ctranslate2()
    name = f"{EXPORTS}/ctranslate2-{quantization}"
    folder = run.path / name
    check_links(run.path, (EXPORTS, name))
    certificate = read_certificate(folder / CERTIFICATE)
    if certificate is not None and certificate.get("run") == run.hashes() and _is_sound(folder, certificate):
        return folder
    check_place(folder)
    if folder.exists() and not _may_be_replaced(folder):
        raise ExportError(f"{folder}: is damaged, or holds something else as well: remove it, and it is made anew")
    from seq2seq.export.exporting import Certification, export_run

    warn(f"making an export ({quantization}) in {folder}, once for this model")
    try:
        export_run(
            run.path,
            folder,
            to="ctranslate2",
            quantization=quantization,
            overwrite=True,
            certification=Certification(most=CERTIFY_SENTENCES, made_up=True),
        )
    except UnwritableExportError as error:
        elsewhere = shlex.join(["seq2seq", "export", str(run.path), "FOLDER", "--to", "ctranslate2"])
        raise ExportError(
            f"{error}; translate once where {run.path} can be written, or with a copy of it that can; `{elsewhere}` "
            "writes an export elsewhere"
        ) from None
    return folder


def _may_be_replaced(folder: Path) -> bool:
    try:
        check_free(folder, overwrite=True)
    except ExportError:
        return False
    return True


def _is_sound(folder: Path, certificate: dict[str, Any]) -> bool:
    """Whether an export passed, as exports are tried now, and its files are those that were tried, and no others."""
    files = certificate.get("files")
    if certificate.get("passed") is not True or certificate.get("format_version") != FORMAT_VERSION:
        return False
    try:
        there = {entry.name for entry in folder.iterdir() if not is_litter(entry.name)}
        if not isinstance(files, dict) or there != {*files, CERTIFICATE}:
            return False
        check_links(folder, files)
        return all(sha256_of(folder / file) == digest for file, digest in files.items())
    except (UserError, OSError):
        return False
