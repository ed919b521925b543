"""What a user can do something about. Each is one line with the file or field, the value and the remedy."""

from __future__ import annotations

from typing import Any


class UserError(ValueError):
    """Base of every error that is the user's to mend; the command line prints it as one line, without a traceback.

    exit_code: 1 where the job failed, 2 where the arguments or the configuration are wrong.
    """

    exit_code = 1


class OptionError(UserError):
    """An option or argument is out of range."""

    exit_code = 2


def explain(error: Exception) -> tuple[str, int] | None:
    """What the command line says about an exception, on one line, and its exit code; None for a defect of ours."""
    if isinstance(error, UserError):
        return str(error), error.exit_code
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object[:80]!r} cannot be written as {error.encoding}: rename it, or set PYTHONUTF8=1", 1
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", 1
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "t allocate memory" in str(error):
        return "out of memory: lower training.batch_tokens to train, --beam-size to translate", 1
    if hasattr(error, "format_message"):  # typer's usage errors, whose class moves with its version
        return _usage_problem(error), 2
    return None


def _usage_problem(error: Any) -> str:
    """What typer has to say about the arguments, with the value, and where to read on."""
    message, context, cause = error.format_message(), getattr(error, "ctx", None), error.__cause__
    given = f" (given: {cause.errors()[0]['input']!r})" if hasattr(cause, "errors") else ""
    return f"{message}{given}" + (f" (see {context.command_path} --help)" if context else "")
