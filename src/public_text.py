"""What a client may read of an error's text: nothing about where files lie on this machine. The logs keep it."""

import re

# /v1/ is this server's own, and what begins with // a URL's. A folder's name may hold spaces, the last name only in quotes.
_QUOTED = re.compile(r"""(?<=(['"`]))/(?!v1/|/)[^'"`\n]+(?=\1)""")
_PATH = re.compile(r"""(?<![\w/.~)\]}'"`-])/(?!v1/)(?:[^\s/'"`,;:()\[\]{}]+(?: [^\s/'"`,;:()\[\]{}]+)*/)*[^\s/'"`,;:()\[\]{}]*""")


def without_paths(text: str) -> str:
    """The text with the last name of each absolute path in the path's place."""
    return _PATH.sub(_last_name, _QUOTED.sub(_last_name, text))


def _last_name(path: re.Match[str]) -> str:
    whole = path[0].rstrip("/.")
    return whole.rpartition("/")[2] + path[0][len(whole) :].strip("/") if whole else path[0]
