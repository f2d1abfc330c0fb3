"""Writes docs/TEMPLATES.md: what this server does to conversations for each chat template that llama.cpp tests its own server with.

    python -m tools.templates_page [--check]

The templates lie in the source package of llama-cpp-python, in the version that requirements.txt names. It is fetched by pip once and
kept in ~/.cache: the templates have licences of their own, so they are not copied here.
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from src.settings import ROOT
from src.text.conversation import Conversation
from src.text.template import ChatTemplate

PAGE = ROOT / "docs" / "TEMPLATES.md"
CACHE = Path.home() / ".cache" / "llm-inference-service" / "templates"
IN_PACKAGE = re.compile(r"[^/]+/vendor/llama\.cpp/models/templates/([^/]+)\.jinja")
MOST_BYTES = 1 << 20  # of one template
HEAD = """# Chat templates

A chat template is written for a system message, then user and assistant in turn. Clients send more: several system messages, one in the
middle, two user messages in a row, text beside a tool call. When a model is loaded, this server tries its template on small conversations
and repairs what it would refuse or leave out. A conversation that the template takes as it is stays as it is.

- **systems joined**: several system messages at the beginning become one.
- **system to user**: the template takes no system message, so its text goes before what the user says first. "in tool loops": the
  template shows it only where the last message is the user's, so else it goes before the user's last message.
- **system folded**: a system message further down goes into the user's message behind it, between `<system-reminder>` tags; else into the
  user's message or the tool's result before it. What was said before stays the same, and with it the prompt cache.
- **turns joined**: messages of one role in a row become one.
- **empty turns**: a template that does not count calls and results gets an empty turn where two of one side would follow.
- **text apart**: what the model says beside a call becomes a message before it. "in reasoning": it goes behind the reasoning.
- **reasoning as …**: earlier reasoning is given under the name that the template reads.

The table shows the templates that llama.cpp's own tests use, with the tool format that is read from each. `generic`: tools are described
in the prompt's own words. The page is written by `python -m tools.templates_page`, and a test holds it there.

| template | tool format | repairs |
|---|---|---|
"""
WORDS = {
    "merged_system": "systems joined",
    "into_user_turn": "system to user",
    "beside_last_user": "system to user in tool loops",
    "folded_system": "system folded",
    "joined_turns": "turns joined",
    "alternating": "empty turns",
    "text_apart": "text apart",
    "past_text_apart": "text apart in past turns",
    "text_in_reasoning": "text in reasoning",
    "reasoning_as_thinking": "reasoning as `thinking`",
    "reasoning_as_part": "reasoning as part of the content",
}


def templates() -> dict[str, str]:
    """Their sources by name."""
    requirement = next(line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("llama-cpp-python=="))
    folder = CACHE / requirement.partition("==")[2]
    if not folder.is_dir():
        _fetch(requirement, folder)
    return {path.stem: path.read_text() for path in sorted(folder.glob("*.jinja"))}


def page() -> str:
    return HEAD + "".join(f"| {name} | {_row(source)} |\n" for name, source in templates().items())


def _row(source: str) -> str:
    template = ChatTemplate(source, bos_text="<s>", eos_text="</s>", special_texts=())
    try:
        conversation = Conversation(template, None)
    finally:
        template.close()
    return f"{conversation.format} | {', '.join(WORDS[name] for name in conversation.repairs)}"


def _fetch(requirement: str, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        words = ["download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python", "--dest", work, requirement]
        subprocess.run([sys.executable, "-m", "pip", *words], check=True)
        (package,) = Path(work).glob("*.tar.gz")
        made = Path(work, "templates")
        made.mkdir()
        with tarfile.open(package) as archive:
            for member in archive:
                if (found := IN_PACKAGE.fullmatch(member.name)) and member.isfile() and member.size <= MOST_BYTES:
                    content = archive.extractfile(member)
                    assert content
                    (made / f"{found[1]}.jinja").write_bytes(content.read())
        os.rename(made, folder)


def main() -> int:
    written = page()
    if "--check" in sys.argv[1:]:
        return int(PAGE.read_text() != written)
    PAGE.write_text(written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
