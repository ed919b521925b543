"""What is said of arguments that make no sense, and what to write instead."""

from __future__ import annotations

import re
from typing import Any

from seq2seq import other_names
from seq2seq.errors import OptionError

# What options may be given of once only, and what to do with more.
ONE_EACH = {"FILE": "file: join several with cat", "TEXT": "text"}
RESULTS = {"--json", "--plot"}  # files that are written: the last counts, and nothing is lost


def refuse_repeated(group: Any, arguments: list[str]) -> None:
    """Raises OptionError where a file or text is given twice by an option that takes one: the first would be lost.

    Of numbers and choices the last counts, as everywhere.
    """
    command = group.commands.get(arguments[0]) if arguments else None
    if command is None:
        return
    try:
        parent = group.context_class(group, **group.context_settings)  # it knows of -h
        context = command.context_class(command, info_name=arguments[0], parent=parent)
        _, _, given = command.make_parser(context).parse_args(list(arguments[1:]))
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's, which says so again when it is its turn
            return
        raise
    for option in command.params:
        if option.param_type_name != "option" or option.multiple or RESULTS & set(option.opts):
            continue
        if option.metavar in ONE_EACH and sum(one is option for one in given) > 1:
            raise OptionError(f"{option.opts[0]} is given twice, and takes one {ONE_EACH[option.metavar]}")


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
    from seq2seq.recipe import settings_called  # over a tenth of a second, and only here

    plain = name.lstrip("-").replace("-", "_")
    ours = settings_called(plain) or [one for one in (other_names.setting(plain),) if one is not None]
    if not ours:
        return None
    if not other_names.is_setting(ours[0]):
        return ours[0]
    ways = ("--set " + one.replace(" and ", "=... --set ") + "=..." for one in ours)
    return f"it is a setting: {' or '.join(ways)}"
