"""The unit and the plists of deploy/, made for the folder that the service is installed in."""

from __future__ import annotations

import plistlib
import re
from urllib.parse import quote
from xml.sax.saxutils import escape

WRITTEN_FOR = "/opt/inference"  # the folder that the files of deploy/ name
WIRED_LIMIT = "iogpu.wired_limit_mb="


def unit(text: str, folder: str) -> str:
    """The same unit for another folder, with systemd's quotes and its %% where the folder's name needs them."""
    return "".join(_unit_line(line, folder) for line in text.splitlines(keepends=True))


def _unit_line(line: str, folder: str) -> str:
    key, equals, value = line.partition("=")
    if WRITTEN_FOR not in line or line.startswith("#"):
        return line.replace(WRITTEN_FOR, folder)
    if key == "Documentation":
        return f"{key}={value.replace(WRITTEN_FOR, quote(folder).replace('%', '%%'))}"
    here = folder.replace("%", "%%")
    if key == "WorkingDirectory":  # takes the line as it is, and would take quotes for a part of the name
        return f"{key}={value.replace(WRITTEN_FOR, here)}"
    return f"{key}{equals}{' '.join(_word(word, here) for word in value.split())}\n"


def _word(word: str, here: str) -> str:
    moved = word.replace(WRITTEN_FOR, here)
    return f'"{moved}"' if moved != word and re.search(r"[^\w/.%=@+-]", moved) else moved


def plist(text: str, folder: str) -> str:
    """The same job for another folder."""
    strings = re.compile(r"<string>[^<]*</string>")  # and no comment, in which a name with two dashes would end it
    return strings.sub(lambda found: found[0].replace(WRITTEN_FOR, escape(folder)), text)


def limits(text: str, installed: bytes | None) -> str:
    """The kernel's limits, with the wired limit that the operator has added to those that are installed."""
    try:
        arguments = plistlib.loads(installed)["ProgramArguments"] if installed else []
        kept = [word for word in arguments if re.fullmatch(re.escape(WIRED_LIMIT) + r"\d+", word)]
    except (plistlib.InvalidFileException, ValueError, KeyError, TypeError, AttributeError, SyntaxError):
        return text  # what is there is no job
    added = "".join(f"\t\t<string>{word}</string>\n" for word in kept)
    return text.replace("\t</array>", f"{added}\t</array>", 1)
