"""Keeps special tokens out of user text: cuts their texts, so that no tokenizer sees one whole. Knows nothing of ids or templates."""

import re
from collections.abc import Iterable

# Unicode noncharacters: legal in a string, never assigned, so no text has one for a reason of its own, and no vocabulary either.
SENTINEL_SPLIT = "\ufdd0"  # cuts the text of a special token
SENTINEL_LEAD = "\ufdd1"  # before a text that continues another: takes the space that some vocabularies put in front
SENTINEL_END = "\ufdd2"  # where the last message's content ends
SENTINEL_NOTHING = "\ufdd3"  # the content of a message that says nothing, for a template that refuses one
# Chat markers that a conversion took for ordinary added tokens. All other user-defined tokens are left to users: runs
# of spaces, HTML tags, and <think> or <tool_call>, which templates look for in a message's content.
MARKER = re.compile(r"<[|｜].+[|｜]>", re.DOTALL)


class Guard:
    """Cuts special tokens' texts with SENTINEL_SPLIT, which Tokenizer.encode takes out again once it has cut there."""

    def __init__(self, special_texts: Iterable[str]) -> None:
        # A text of one character cannot be cut.
        beginnings = any_of((text for text in special_texts if len(text) > 1), or_cut_off=True)
        self._first_character = re.compile(f"(?={beginnings}).", re.DOTALL)

    def __call__(self, text: str) -> str:
        """The text with SENTINEL_SPLIT after the first character of every special text in it, and of one that its end cuts off:
        the template or the next message might go on with the rest. SPLITs of the user's own are removed."""
        return self._first_character.sub(rf"\g<0>{SENTINEL_SPLIT}", text.replace(SENTINEL_SPLIT, ""))


def any_of(texts: Iterable[str], *, or_cut_off: bool = False) -> str:
    """A regular expression for any of the texts; with `or_cut_off`, also for a beginning of one at the end of the input.

    Written as a trie, so that a place in the input costs the same for ten texts and for ten thousand. It matches no
    further than the shortest text that fits.
    """
    rests: dict[str, list[str]] = {}
    for text in texts:
        if not text:
            return ""
        rests.setdefault(text[0], []).append(text[1:])
    branches = [re.escape(first) + any_of(rest, or_cut_off=or_cut_off) for first, rest in rests.items()]
    if or_cut_off:
        branches.append(r"\Z")
    if not branches:
        return r"(?!)"  # none of no texts
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
