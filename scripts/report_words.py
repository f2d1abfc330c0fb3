"""Which words of a log or an answer may be reported: those that the server's own source has. Everything else is left out.

A log should hold no prompt and no key. A report goes to strangers, so it does not rely on that: of free text only what stands literally in
src/ or in the documents' tables of errors is kept, and numbers between such words.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections import defaultdict
from pathlib import Path

LEFT_OUT = "…"
LEAST = 12  # characters of a phrase: single words could be a prompt's
DOCUMENTS = ("MAC.md", "TROUBLESHOOTING.md")
_FRAME = re.compile(r'\s*File "([^"]+)", line (\d{1,6}), in ([\w<>.]+)\s*')
_NUMBER = re.compile(r"(?<![\w.])-?\d{1,12}(?:\.\d{1,6})?(?![\w.])")


class Words:
    """The phrases of one installation, whose folder is `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._phrases: dict[str, list[str]] = defaultdict(list)  # by their first letters, the longest first
        self._errors = {name for name in dir(builtins) if isinstance(getattr(builtins, name), type)}
        found: set[str] = set()
        for path in sorted((root / "src").rglob("*.py")):
            self._read(path, found)
        for name in DOCUMENTS:
            path = root / "docs" / name
            if path.exists():
                spans = re.findall(r"`([^`\n]+)`", path.read_text(encoding="utf-8"))
                found |= {part.strip() for span in spans for part in span.split(LEFT_OUT)}
        for phrase in sorted(found, key=len, reverse=True):
            if len(phrase) >= LEAST and " " in phrase:
                self._phrases[phrase[:LEAST]].append(phrase)

    def _read(self, path: Path, found: set[str]) -> None:
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            return
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {line.strip() for line in node.value.splitlines()}
            elif isinstance(node, ast.ClassDef):
                self._errors.add(node.name)

    def keep(self, text: str) -> str:
        """What may be reported of a message."""
        parts: list[tuple[bool, str]] = []  # whether it is kept, and what it is
        place = begun = 0
        while place < len(text):
            phrase = self._phrase_at(text, place)
            if phrase:
                parts += [(False, text[begun:place]), (True, phrase)]
                place = begun = place + len(phrase)
            else:
                place += 1
        parts.append((False, text[begun:]))
        kept = [part if is_kept else self._between(part, 0 < number < len(parts) - 1) for number, (is_kept, part) in enumerate(parts)]
        return re.sub(rf"(\s*{LEFT_OUT}\s*)+", f" {LEFT_OUT} ", "".join(kept)).strip()

    def _phrase_at(self, text: str, place: int) -> str:
        if place and text[place - 1].isalnum() and text[place].isalnum():
            return ""
        for phrase in self._phrases.get(text[place : place + LEAST], ()):
            after = text[place + len(phrase) : place + len(phrase) + 1]
            if text.startswith(phrase, place) and not (after.isalnum() and phrase[-1].isalnum()):
                return phrase
        return ""

    def _between(self, text: str, is_between: bool) -> str:
        """Of what no phrase is: a number alone between two phrases, and spaces and marks."""
        if re.fullmatch(r"[\s.,:;()×=]*", text):
            return text
        if is_between and (number := _NUMBER.search(text)) and re.fullmatch(r"[\s.,:;()×=]*", text.replace(number[0], "", 1)):
            return text
        return f" {LEFT_OUT} "

    def exception(self, line: str) -> str:
        """The last line of a traceback: the exception's class, where it is one of ours or of Python, and what may be kept of its words."""
        name, colon, text = line.strip().partition(": ")
        if not re.fullmatch(r"[A-Za-z_][\w.]*", name) or name.rpartition(".")[2] not in self._errors:
            return self.keep(line)
        return f"{name.rpartition('.')[2]}{colon}{self.keep(text)}"

    def frame(self, line: str) -> str:
        """A line of a traceback that names a place in a file, where there is such a file with such a function; else nothing."""
        if not (found := _FRAME.fullmatch(line)):
            return ""
        path, number, function = found[1], found[2], found[3].rpartition(".")[2]
        name = self._known_file(path)
        if not name or not self._has(path, function):
            return ""
        return f"{name}:{number} {function}"

    def _known_file(self, path: str) -> str:
        if (inside := re.fullmatch(r".*/(?:site-packages|lib/python3[.\d]*)/(.+\.py)", path)) and Path(path).is_file():
            return inside[1]
        try:
            inside_root = Path(path).resolve().relative_to(self._root.resolve())
        except (OSError, ValueError):
            return ""
        return str(inside_root) if inside_root.suffix == ".py" and Path(path).is_file() else ""

    def _has(self, path: str, function: str) -> bool:
        if function in ("<module>", "<lambda>", "<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>"):
            return True
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return bool(re.search(rf"\b(?:def|class)\s+{re.escape(function)}\b", text))
