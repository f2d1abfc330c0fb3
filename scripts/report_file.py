"""Writes the report of scripts/report: sections of lines, with secrets and home folders taken out of the whole once more."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import report_machine
import report_parts
from report_secrets import Secrets, home_folders, known
from report_words import Words

ROOT = Path(__file__).resolve().parent.parent
HEAD = """Report of {when}. Made by scripts/report, which sends it nowhere. {left_out} stands for what was left out.
It is meant to hold no prompt, no key, no token and no name of a home folder: read it before you pass it on.
"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/report", description="Gather what a maintainer needs to know into one file.")
    parser.add_argument("file", nargs="?", help="where to write it (default: report-TIME.txt in this folder); - prints it")
    asked = parser.parse_args(arguments)
    text = report(ROOT, dict(os.environ))
    if asked.file == "-":
        print(text, end="")
        return 0
    path = Path(os.environ.get("REPORT_CALLER", "."), asked.file or f"report-{time.strftime('%Y%m%d-%H%M%S')}.txt")
    try:
        # Never over another file, and for this user alone.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        print(f"scripts/report: cannot write {path}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{path}: read it before you pass it on")
    return 0


def report(root: Path, environ: dict[str, str]) -> str:
    """The whole text."""
    words = Words(root)
    told, settings = report_parts.settings(root, environ)
    sections = {
        "Machine": report_machine.machine(),
        "Versions": report_machine.versions(root),
        "Settings": told,
    }
    token = ""
    sections["Last errors"] = report_parts.errors(settings.log_path if settings else root / "logs", words)
    if settings:
        sections["Server"], token = report_parts.status(settings, words)
    sections["Tests"] = report_parts.tests(root)
    text = HEAD.format(when=time.strftime("%Y-%m-%d %H:%M %z"), left_out="…")
    text += "".join(f"\n== {name}\n" + "\n".join(lines) + "\n" for name, lines in sections.items())
    return Secrets([*known(environ), *_of_env_file(root), *_of_settings(settings), token], home_folders()).without(text)


def _of_env_file(root: Path) -> list[str]:
    """Also of a file that is no valid .env."""
    try:
        lines = (root / ".env").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    pairs = [line.partition("=")[::2] for line in lines if "=" in line]
    return known({name.strip(" #"): value.split(" #")[0].strip(" \t\"'") for name, value in pairs})


def _of_settings(settings: Any) -> list[str]:
    """Secrets that stand in files of their own."""
    found = {}
    for name in ("read_api_key", "read_rate_limit_storage") if settings else ():
        with contextlib.suppress(Exception):  # what cannot be read cannot be in the report either
            found[name.upper()] = getattr(settings, name)()
    return known(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
