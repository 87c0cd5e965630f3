"""Generate docs/cli.md from the program's own parser: `python -m candlemill.cli.reference > docs/cli.md`."""

import argparse
import re
import sys
from collections.abc import Iterator

from candlemill.cli.main import parser

HEAD = """# Command line

Every command and option. This page is generated from the program (`make reference`); `candlemill COMMAND --help` shows
the same. Results go to stdout, everything else to stderr. Exit status: 0 done, 1 failure, 2 bad input, 130 interrupted.
"""


def page() -> str:
    """Return the page as Markdown."""
    parts = [HEAD]
    for name, sub, text in commands(parser()):
        parts.append(f"\n## candlemill {name}\n{_sentence(text)}\n\n```text\n{_usage(sub)}\n```\n")
        rows = [_row(action) for action in _ordered(sub)]
        if rows:
            parts.append("\n| argument | |\n|---|---|\n" + "".join(f"{row}\n" for row in rows))
    return "".join(parts)


def commands(top: argparse.ArgumentParser, prefix: str = "") -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """Yield name, parser and description of each command; a command of a group has the group's name first."""
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, sub in action.choices.items():
                inner = list(commands(sub, f"{prefix}{name} "))
                yield from inner or [(f"{prefix}{name}", sub, texts.get(name, ""))]


def _is_listed(action: argparse.Action) -> bool:
    return not isinstance(action, argparse._HelpAction) and action.dest != "verbose"


def _ordered(sub: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments in order: required ones first, `--json` last."""

    def rank(action: argparse.Action) -> int:
        return 0 if not action.option_strings else 1 if action.required else 3 if action.dest == "json" else 2

    return sorted(filter(_is_listed, sub._actions), key=rank)


def _usage(sub: argparse.ArgumentParser) -> str:
    """Return the usage line: positional arguments, required options, and `[options]` if there are more."""
    listed = _ordered(sub)
    needed = [_call(action) for action in listed if not action.option_strings or action.required]
    more = ["[options]"] if len(needed) < len(listed) else []
    return " ".join([sub.prog, *needed, *more])


def _call(action: argparse.Action) -> str:
    value = _value(action)
    if action.option_strings:
        return f"{action.option_strings[-1]} {value}".rstrip()
    if action.nargs in ("*", "+"):
        value += " ..."
    return f"[{value}]" if action.nargs in ("?", "*") else value


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices is not None and not action.metavar:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


def _row(action: argparse.Action) -> str:
    notes = [(action.help or "").replace("%%", "%")]
    if action.required and action.option_strings:
        notes.append("needed")
    if isinstance(action, argparse._AppendAction):
        notes.append("may be repeated")
    default = action.default
    if default not in (None, False, [], "", argparse.SUPPRESS) and "default" not in notes[0]:
        notes.append(f"default {default}")
    if action.choices is not None and action.metavar:
        notes.append("one of " + ", ".join(map(str, action.choices)))
    text = "; ".join(note for note in notes if note)
    return f"| `{_escaped(_call(action))}` | {_escaped(text)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _sentence(text: str) -> str:
    return re.sub(r"^\w", lambda m: m[0].upper(), text.replace("%%", "%")) + "."


if __name__ == "__main__":
    sys.stdout.write(page())
