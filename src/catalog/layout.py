"""What models are called and where they come from, by the layout that they lie in.

The first folder of MODELS_DIR      as src.catalog.scan says: its own folders' names
another one, or LM Studio's         publisher/model/…: model, or the files' stems where there are several in it
models--org--name/snapshots/…       name; huggingface-hub's cache
models/org--name/snapshots/…        name; modelscope's cache
manifests/HOST/…/MODEL/TAG          MODEL:TAG; Ollama's store
"""

from pathlib import Path

import msgspec

from src.catalog.folders import repository

_LM_STUDIO = ((".lmstudio", "models"), (".cache", "lm-studio", "models"))  # where it keeps its models unless told otherwise


class Place(msgspec.Struct, frozen=True):
    """Where a model lies."""

    source: str  # folder, lm_studio, huggingface, modelscope, ollama
    folder: str  # of MODELS_DIR: ~/… below the home folder, else its last name

    @property
    def label(self) -> str:
        """For the name of one of several models that share theirs."""
        return self.source.replace("_", "-") if self.source != "folder" else self.folder.rpartition("/")[2]


class Layout:
    """Of one models folder. Paths are relative to it: of a GGUF the file's, else the folder's."""

    def __init__(self, root: Path, *, is_own: bool) -> None:
        self._is_lm_studio = any(root.parts[-len(parts) :] == parts for parts in _LM_STUDIO)
        self._has_publishers = self._is_lm_studio or not is_own
        self._folder = _shown(root)

    def group(self, where: Path, *, is_folder: bool) -> tuple[str, ...]:
        """The folder whose name the only model in it has; of a file directly in the models folder, the file."""
        if depth := self._cache_depth(where):
            return where.parts[:depth]
        if not self._has_publishers:
            return where.parts[:1]
        return where.parts[: 2 if is_folder else min(2, len(where.parts) - 1)] or where.parts

    def name(self, group: tuple[str, ...]) -> str:
        """Of the only model in a group."""
        return repository(group[-1]) if self._is_cache(group) else group[-1]

    def longer_name(self, where: Path, group: tuple[str, ...], *, is_only: bool) -> str:
        """Of a model whose name another one has already."""
        if not (self._has_publishers and is_only):
            return str(where)
        return group[-1].removeprefix("models--").replace("--", "/", 1) if self._is_cache(group) else "/".join(group)

    def place(self, where: Path, *, in_store: bool) -> Place:
        if in_store:
            return Place("ollama", self._folder)
        if depth := self._cache_depth(where, anywhere=True):
            return Place("huggingface" if where.parts[depth - 1].startswith("models--") else "modelscope", self._folder)
        return Place("lm_studio" if self._is_lm_studio else "folder", self._folder)

    def _cache_depth(self, where: Path, *, anywhere: bool = False) -> int:
        """Of the folder of a repository in a hub's cache; 0: it lies in none."""
        deep = self._has_publishers or anywhere
        for depth in range(1, len(where.parts)):
            group = where.parts[:depth]
            is_top = depth == 1 or (depth == 2 and group[0] == "models")
            if self._is_cache(group) and where.parts[depth : depth + 1] == ("snapshots",) and (deep or is_top):
                return depth
        return 0

    @staticmethod
    def _is_cache(group: tuple[str, ...]) -> bool:
        return group[-1].startswith("models--") or group[-2:-1] == ("models",)


def _shown(root: Path) -> str:
    try:
        return f"~/{root.relative_to(Path.home())}"
    except (ValueError, RuntimeError):  # RuntimeError: this user has no home
        return root.name
