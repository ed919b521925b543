"""What can keep a run from being exported."""

from __future__ import annotations

from seq2seq.errors import UserError


class ExportError(UserError):
    """A run that cannot be exported as asked. The message names the field or file and the remedy."""


class UnwritableExportError(ExportError):
    """The folder of an export cannot be made, or not be filled."""
