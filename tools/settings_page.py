"""Writes docs/SETTINGS.md and the comments of .env.example from src/settings: python -m tools.settings_page [--check].

The sections are those of .env.example, which a new setting is added to by hand; names, defaults and descriptions are written.
"""

import re
import sys
from collections.abc import Iterator

from src.settings import ROOT, Settings

PAGE, EXAMPLE = ROOT / "docs" / "SETTINGS.md", ROOT / ".env.example"
HEAD = """# Settings

Settings come from the environment, or from a file `.env` in the project's folder ([.env.example](../.env.example) lists them all); the
environment wins, and an empty value counts as not set. A value that is not valid stops the start with a line that names it.

This page is written by `python -m tools.settings_page` from `src/settings`, and a test holds it there.
"""


def sections(example: str) -> Iterator[tuple[str, list[str]]]:
    """The headings of .env.example and the settings below each."""
    for block in re.split(r"^## ", example, flags=re.MULTILINE)[1:]:
        heading, _, lines = block.partition("\n")
        if names := re.findall(r"^#(\w+)=", lines, re.MULTILINE):
            yield heading, names


def default_of(name: str) -> str:
    """As it stands in the environment."""
    default = Settings.model_fields[name.lower()].default
    return str(default).lower() if isinstance(default, bool) else str(default)


def page(example: str) -> str:
    parts = [HEAD]
    for heading, names in sections(example):
        parts.append(f"\n## {heading}\n\n| setting | default | meaning |\n|---|---|---|\n")
        for name in names:
            default = f"`{default_of(name)}`" if default_of(name) else ""
            parts.append(f"| `{name}` | {default} | {Settings.model_fields[name.lower()].description} |\n")
    return "".join(parts)


def commented(example: str) -> str:
    """.env.example with the description above each setting and its default behind it."""

    def entry(found: re.Match[str]) -> str:
        return f"# {Settings.model_fields[found[1].lower()].description}\n#{found[1]}={default_of(found[1])}\n"

    return re.sub(r"^# .*\n#(\w+)=.*\n", entry, example, flags=re.MULTILINE)


def main(argv: list[str]) -> int:
    example = commented(EXAMPLE.read_text())
    wanted = {EXAMPLE: example, PAGE: page(example)}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)} is stale" if "--check" in argv else f"wrote {path.relative_to(ROOT)}")
        if "--check" not in argv:
            path.write_text(wanted[path])
    return int("--check" in argv and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
