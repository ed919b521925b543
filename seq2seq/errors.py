"""What a user can do something about. Each is one line with the file or field, the value and the remedy."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any


class UserError(ValueError):
    """Base of every error that is the user's to mend; the command line prints it as one line, without a traceback.

    exit_code: 1 where the job failed, 2 where the arguments or the configuration are wrong.
    """

    exit_code = 1


class OptionError(UserError):
    """An option or argument is out of range."""

    exit_code = 2


class Named:
    """An option as messages mention it: `{beam_size}` is its name with its value, `{beam_size.name}` its name."""

    def __init__(self, name: str, value: object, *, typed: bool) -> None:
        self.name = f"--{name.replace('_', '-')}" if typed else name
        self._value, self._typed = value, typed

    def __str__(self) -> str:
        if self._typed:  # as it was typed; a switch has no value
            return self.name if self._value is True else f"{self.name} {self._value}"
        return f"{self.name} = {self._value!r}"


class SearchOptionError(OptionError):
    """Options of a search that are wrong, named as they are in Python, or (`typed`) as on the command line.

    template: the message, with {name} or {name.name} (see `Named`) where the option `name` is mentioned; remedy: its
    end, likewise, where the problem is also told without it.
    """

    def __init__(self, template: str, remedy: str = "", /, **values: object) -> None:
        self.template, self.remedy, self.values = template, remedy, values
        super().__init__(self._message(typed=False))

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process: of an exception pickle keeps its message alone, which is no template."""
        return _search_option_error, (self.template, self.remedy, self.values)

    @property
    def typed(self) -> str:
        """The message for who typed the options."""
        return self._message(typed=True)

    @property
    def problem(self) -> str:
        """The message without the remedy."""
        return self._formatted(self.template, typed=False)

    def _message(self, *, typed: bool) -> str:
        return self._formatted(f"{self.template}: {self.remedy}" if self.remedy else self.template, typed=typed)

    def _formatted(self, template: str, *, typed: bool) -> str:
        return template.format(**{name: Named(name, value, typed=typed) for name, value in self.values.items()})


def _search_option_error(template: str, remedy: str, values: dict[str, object]) -> SearchOptionError:
    return SearchOptionError(template, remedy, **values)


def unreadable(path: Path, error: OSError, what: str = "file") -> str:
    """Why a file that the user named cannot be read, and what to do."""
    if isinstance(error, FileNotFoundError):
        return f"{path}: no such {what}; check the path"
    if isinstance(error, IsADirectoryError):
        return f"{path}: is a folder, not a {what}; name a file"
    if isinstance(error, PermissionError):
        return f"{path}: may not be read; check its permissions"
    return f"{path}: cannot be read ({error.strerror or error})"


OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What helps, as the end of a message.
REMEDIES = {
    **dict.fromkeys(OUT_OF_SPACE, "; free some space or choose another disk"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "; check its permissions"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), "; choose another name"),
    errno.EROFS: "; choose a place that can be written to",
    errno.ENOENT: "; check the path",
}

# What torch and its libraries say when memory cannot be had.
OUT_OF_MEMORY = ("out of memory", "t allocate memory", "could not create a primitive", "bad_alloc")


def explain(error: Exception) -> tuple[str, int] | None:
    """What the command line says about an exception, on one line, and its exit code; None for a defect of ours."""
    if isinstance(error, SearchOptionError):
        return error.typed, error.exit_code
    if isinstance(error, UserError):
        return str(error), error.exit_code
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object[:80]!r} cannot be written as {error.encoding}: rename it, or set PYTHONUTF8=1", 1
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}{REMEDIES.get(error.errno or 0, '')}", 1
    if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
        return "out of memory: lower training.batch_tokens to train, --beam-size or --n-best to translate", 1
    if isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("temporarily unavailable", "new thread")
    ):
        return "the system lets no more threads begin: end other programs, lower --threads, or raise `ulimit -u`", 1
    return None
