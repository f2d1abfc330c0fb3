"""Takes secrets and the names of home folders out of a text. The last look at a report, whatever else has looked at it."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

REMOVED = "‹removed›"
LEAST = 4  # characters of a secret that is looked for as it is: shorter ones would take half the text away
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH|COOKIE|STORAGE|HEADERS", re.IGNORECASE)
_SHAPES = (
    (re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{1,20}://)[^\s/@]*@"), rf"\1{REMOVED}@"),
    (re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s?#\"']*)[?#][^\s\"']*"), rf"\1?{REMOVED}"),
    (re.compile(r"(?i)\b(bearer|basic|digest)\s+[^\s\"',;]+"), rf"\1 {REMOVED}"),
    (
        re.compile(
            r"(?i)\b([\w-]*(?:api[-_]?key|token|secret|passw(?:or)?d|authorization|cookie|credential)[\w-]*[\"']?\s*[:=]\s*[\"']?)[^\s\"',;&]+"
        ),
        rf"\1{REMOVED}",
    ),
    (
        re.compile(r"\b(?:sk|pk|rk|hf|gh[pousr]|github_pat|glpat|xox[abprs]|AKIA|ASIA|ya29|AIza)[-_.]?[A-Za-z0-9][A-Za-z0-9._-]{7,}"),
        REMOVED,
    ),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]+)*"), REMOVED),
    (re.compile(r"(?<![A-Za-z0-9_+=])(?=[A-Za-z_+=]*\d)(?=[\d_+=]*[A-Za-z])[A-Za-z0-9_+=]{24,}"), REMOVED),
    (re.compile(r"-----BEGIN [^-]*-----.*?(?:-----END [^-]*-----|\Z)", re.DOTALL), REMOVED),
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), REMOVED),
)


class Secrets:
    def __init__(self, values: Iterable[str], homes: Iterable[str]) -> None:
        """`values`: secrets that are known."""
        self._values = sorted({value for value in values if len(value) >= LEAST}, key=len, reverse=True)
        self._homes = sorted({home.rstrip("/") for home in homes if len(home.rstrip("/")) > 1}, key=len, reverse=True)

    def without(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, REMOVED)
        for shape, instead in _SHAPES:
            text = shape.sub(instead, text)
        for home in self._homes:
            text = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
        text = re.sub(r"(?:/private)?(?:/var)?/(?:home|Users)/[^\s/:'\",;)\]]+", "~", text)
        return re.sub(r"(?<![\w.~-])(?:/private)?(?:/var)?/root(?![\w.-])", "~", text)


def known(environ: Mapping[str, str]) -> list[str]:
    """Values of variables that are secrets by their name, and the passwords in any address."""
    found = []
    for name, value in environ.items():
        if _SECRET_NAME.search(name) and not re.fullmatch(r"\d*|true|false|none|memory", value, re.IGNORECASE):
            found.append(value)
        found += [part for address in re.findall(r"://([^\s/@]+)@", value) for part in address.split(":", 1)]
    return found


def home_folders() -> list[str]:
    """Of this machine's people. Accounts of services have folders that everybody knows."""
    found = [str(Path.home()), os.environ.get("HOME", "")]
    with contextlib.suppress(OSError):
        found += [
            each.pw_dir for each in pwd.getpwall() if each.pw_uid >= 500 and each.pw_dir.count("/") > 1 and each.pw_dir != "/var/empty"
        ]
    return found
