"""The documentation's blocks of code, and a runner for a page's commands.

A block of a page begins with its language:

    ```sh                     commands; they run from the top of the page to its end, in one folder
    ```sh no-run: REASON      commands that cannot run in a test; those of candlemill must still parse
    ```python                 runs too, all blocks of a page in one namespace
    ```text                   what the commands before it print; `…` stands for lines that are left out
"""

import contextlib
import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from candlemill.cli import main

ROOT = Path(__file__).parents[2]
SERVICES = ("serve", "db")
SHELL = re.compile(r"[|<>&;$`…]|^\w+=")
TIMEOUT_SECONDS = 300


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    note: str  # what follows the language
    text: str

    @property
    def is_run(self) -> bool:
        return self.language in ("sh", "python") and not self.note.startswith("no-run")

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    names = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
    return [*(ROOT / name for name in names if (ROOT / name).exists()), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page; those of a list lose its indent."""
    opened: tuple[int, int, str, list[str]] | None = None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = re.match(r"( *)```(.*)$", line)
        if fence and opened is None:
            opened = (number, len(fence[1]), fence[2].strip(), [])
        elif fence and opened is not None:
            at, _, head, lines = opened
            language, _, note = head.partition(" ")
            yield Block(page, at, language, note.strip(), "\n".join(lines))
            opened = None
        elif opened is not None:
            opened[3].append(line[opened[1] :])


def commands_of(text: str) -> list[str]:
    """Commands of a block of shell: continued lines are joined, a here-document stays with its command."""
    found: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        command = line
        while command.endswith("\\"):
            command = f"{command[:-1]} {next(lines).strip()}"
        here = re.search(r"<<'?(\w+)'?", command)
        if here:
            for part in lines:
                command += f"\n{part}"
                if part == here[1]:
                    break
        if command.strip() and not command.lstrip().startswith("#"):
            found.append(command)
    return found


def words_of(command: str) -> list[str]:
    return shlex.split(command, comments=True)


def programs_of(command: str) -> Iterator[list[str]]:
    """The words of each call of candlemill in a command: between pipes, after variables, without redirections."""
    lexer = shlex.shlex(command.partition("\n")[0], posix=True, punctuation_chars="|;&<>")
    lexer.whitespace_split = True
    calls: list[list[str]] = [[]]
    for word in lexer:
        if word[0] in "<>":
            next(lexer, None)
            if calls[-1] and calls[-1][-1] == "2":
                calls[-1].pop()
        elif word[0] in "|;&":
            calls.append([])
        elif calls[-1] or not re.match(r"\w+=", word):
            calls[-1].append(word)
    for words in calls:
        if words and words[0] == "candlemill" and not any("…" in word for word in words):
            yield words[1:]


class PageRunner:
    """Runs a page's blocks in the current folder. Simple calls of candlemill run in this process, which is quick."""

    def __init__(self, folder: Path) -> None:
        self._namespace: dict[str, Any] = {"__name__": "documentation"}
        self._service: subprocess.Popen[str] | None = None
        self._ports: dict[str, str] = {}  # of the page: the one that is used instead
        self._bin = folder / ".bin"
        self._bin.mkdir()
        for name, call in (("candlemill", "-m candlemill "), ("python", "")):
            (self._bin / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {call}"$@"\n')
            (self._bin / name).chmod(0o755)

    def run(self, block: Block) -> str:
        """What the block prints. Raises AssertionError with the place of a command that fails."""
        if block.language == "python":
            self._stop_service()
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(block.text, block.place, "exec"), self._namespace)
            return printed.getvalue()
        return "".join(self._command(command, block.place) for command in commands_of(block.text))

    def port(self, named: str) -> str:
        """The port of the service that the page has on port `named`."""
        return self._ports[named]

    def close(self) -> None:
        self._stop_service()

    def _command(self, command: str, place: str) -> str:
        for old, new in self._ports.items():
            command = re.sub(rf"\b{old}\b", new, command)
        words = words_of(command) if "<<" not in command else []
        expected = int((re.search(r"# exit status (\d)", command) or "00")[1])
        if words[:1] == ["export"]:
            for word in words[1:]:
                name, _, value = word.partition("=")
                os.environ[name] = os.path.expandvars(value)
            return ""
        if words[:1] == ["candlemill"] and words[1] in SERVICES:
            self._serve(words)
            return ""
        if words[:1] == ["candlemill"] and not SHELL.search(command.partition("#")[0]):
            self._stop_service()
            return self._in_process(words[1:], expected, f"{place}: {command}")
        done = subprocess.run(
            ["bash", "-ec", command],
            env={**_environment(), "PATH": f"{self._bin}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        assert done.returncode == expected, f"{place}: {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _in_process(self, arguments: list[str], expected: int, place: str) -> str:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main.main(arguments)
        assert status == expected, f"{place}\n{out.getvalue()}{err.getvalue()}"
        return out.getvalue()

    def _serve(self, words: list[str]) -> None:
        """Start a service on a free port; later commands of the page find it there."""
        self._stop_service()
        port = words[words.index("--port") + 1] if "--port" in words else {"serve": "8080", "db": "8123"}[words[1]]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._ports[port] = str(free.getsockname()[1])
        command = [sys.executable, "-m", "candlemill", words[1], "--port", self._ports[port]]
        self._service = subprocess.Popen(command, env=_environment(), stderr=subprocess.PIPE, text=True)
        assert self._service.stderr is not None
        line = self._service.stderr.readline()
        threading.Thread(target=self._service.stderr.read, daemon=True).start()  # a full pipe would stop it
        assert self._ports[port] in line, line

    def _stop_service(self) -> None:
        if self._service is not None:
            self._service.send_signal(signal.SIGTERM)
            self._service.wait(TIMEOUT_SECONDS)
            self._service = None


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "core"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**os.environ, "PYTHONPATH": path}


def shape(text: str) -> list[str]:
    """Lines without their numbers, digests and spacing: what stays when a figure changes."""
    lines = []
    for line in text.splitlines():
        words = re.sub(r"[0-9a-f]{16,}|[-+]?\d[\d,.:TZ%-]*", "#", line)
        lines.append(" ".join(re.sub(r"-{2,}", "#", words).split()))
    return [line for line in lines if line]
