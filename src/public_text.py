"""What a client may read of an error's text: nothing about where files lie on this machine. The logs keep it."""

import re

# /v1/ is this server's own, and what begins with // a URL's. A folder's name may hold spaces and apostrophes, the last name spaces
# only in quotes, which a shortened text may leave open.
_FILE_URL = re.compile(r"\bfile://(?=/)")
_QUOTED = re.compile(r"""(?<=(['"`]))/(?!v1/|/)(?:(?!\1)[^\n])+""")
_WORD = r"""(?:[^\s/'"`,;:()\[\]{}]|(?<=\w)'(?=\w))"""
_PATH = re.compile(rf"""(?<![\w/.~)\]}}'"`-])/(?!v1/)(?:{_WORD}+(?: {_WORD}+)*/)*{_WORD}*""")


def without_paths(text: str) -> str:
    """The text with the last name of each absolute path in the path's place."""
    return _PATH.sub(_last_name, _QUOTED.sub(_last_name, _FILE_URL.sub("", text)))


def _last_name(path: re.Match[str]) -> str:
    whole = path[0].rstrip("/.")
    return whole.rpartition("/")[2] + path[0][len(whole) :].strip("/") if whole else path[0]
