"""What is said of arguments that make no sense, and what to write instead."""

from __future__ import annotations

import re
from typing import Any

from seq2seq import other_names
from seq2seq.errors import OptionError

# What options may be given of once only, and what to do with more.
ONE_EACH = {"FILE": "file: join several with cat", "TEXT": "text"}


def refuse_repeated(group: Any, arguments: list[str]) -> None:
    """Raises OptionError where a file or text is given twice by an option that takes one: the first would be lost.

    Of numbers and choices the last counts, as everywhere.
    """
    command = group.commands.get(arguments[0]) if arguments else None
    given = arguments[1 : arguments.index("--") if "--" in arguments else None]
    for option in command.params if command is not None else ():
        if option.param_type_name != "option" or option.multiple or option.metavar not in ONE_EACH:
            continue
        for name in option.opts:
            if sum(one == name or one.startswith(f"{name}=") for one in given) > 1:
                raise OptionError(f"{name} is given twice, and takes one {ONE_EACH[option.metavar]}")


def explain_usage(error: Any) -> str:
    """What typer has to say about the arguments, with the value, and where to read on."""
    message, context, cause = error.format_message(), getattr(error, "ctx", None), error.__cause__
    given = f" (given: {cause.errors()[0]['input']!r})" if hasattr(cause, "errors") else ""
    takes_text = context is not None and any(one.name == "sentence" for one in context.command.params)
    if instead := _instead(error, message):
        message = instead
    elif takes_text and hasattr(error, "option_name") and not getattr(error, "possibilities", None):
        message = f"{message.strip()}; before a sentence that begins with a dash write --"
    return f"{message}{given}" + (f" (see {context.command_path} --help)" if context else "")


def _instead(error: Any, message: str) -> str | None:
    """What to write for an option or command that is a setting here, or that another toolkit has."""
    context, name = getattr(error, "ctx", None), getattr(error, "option_name", None)
    if context is None:
        return None
    if name is not None and message.startswith("No such option"):
        problem = f"No such option: {name}"
        if ours := other_names.option(context.info_name, name):
            return f"{problem}; instead: {ours}"
        if any("--set" in one.opts for one in context.command.params) and (setting := _setting(name)):
            return f"{problem}; {setting}"
    elif found := re.match(r"No such command '(.*)'", message):
        problem = f"No such command '{found[1]}'"
        if ours := other_names.command(found[1]):
            return f"{problem}; instead: seq2seq {ours}"
        if "Did you mean" not in message:
            return f"{problem}; there are {', '.join(context.command.commands)}"
    return None


def _setting(name: str) -> str | None:
    """How to write a setting that was written as an option."""
    from seq2seq.recipe import SECTIONS, settings_called  # over a tenth of a second, and only here

    plain = name.lstrip("-").replace("-", "_")
    ours = settings_called(plain) or [one for one in (other_names.setting(plain),) if one is not None]
    if not ours:
        return None
    if ours[0].partition(".")[0] not in SECTIONS:
        return ours[0]
    ways = ("--set " + one.replace(" and ", "=... --set ") + "=..." for one in ours)
    return f"it is a setting: {' or '.join(ways)}"
