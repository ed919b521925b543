"""What a user can do something about. Each is one line with the file or field, the value and the remedy."""

from __future__ import annotations


class UserError(ValueError):
    """Base of every error that is the user's to mend; the command line prints it as one line, without a traceback.

    exit_code: 1 where the job failed, 2 where the arguments or the configuration are wrong.
    """

    exit_code = 1


class OptionError(UserError):
    """An option or argument is out of range."""

    exit_code = 2
