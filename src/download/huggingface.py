"""Hugging Face by its own client. HF_ENDPOINT, HF_TOKEN and the like are the client's own settings."""

import errno
import glob
import hashlib
import io
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.download.errors import DownloadError
from src.download.reference import Reference
from src.download.source import Listing, RemoteFile, Source, no_file_larger_than, wrong

FILES_AT_A_TIME = 4
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_UPDATE_CHECK", "1")


class HuggingFace(Source):
    name = "huggingface"

    def list(self, reference: Reference) -> Listing:
        from huggingface_hub import HfApi, constants
        from huggingface_hub.hf_api import RepoFile

        repo, revision = reference.repo, reference.revision
        with _explained(repo, revision):
            api = HfApi()
            commit = api.model_info(repo, revision=revision).sha or ""
            if not re.fullmatch(r"[0-9a-f]{40,64}", commit):
                raise DownloadError(f"{repo} has the commit {commit[:100]!r} on {constants.ENDPOINT}, which is none")
            tree = [file for file in api.list_repo_tree(repo, recursive=True, revision=commit) if isinstance(file, RepoFile)]
        files = [
            RemoteFile(
                file.path, file.lfs.size if file.lfs else file.size, f"sha256:{file.lfs.sha256}" if file.lfs else f"git:{file.blob_id}"
            )
            for file in tree
        ]
        return Listing(source=self.name, repo=repo, revision=revision, commit=commit, files=files)

    def fetch(self, listing: Listing, folder: Path) -> None:
        from huggingface_hub import constants

        missing = [file for file in listing.files if wrong(file, folder / file.path)]
        large = [file for file in missing if file.size > constants.MAX_HTTP_DOWNLOAD_SIZE]
        with _explained(listing.repo, listing.revision):
            with ThreadPoolExecutor(FILES_AT_A_TIME) as pool:
                list(pool.map(lambda file: _fetch(listing, file, folder), [file for file in missing if file not in large]))
            for file in large:  # the hub gives them out by its own protocol only, which begins a broken-off file anew
                from huggingface_hub import snapshot_download

                with _none_larger_than(file):
                    snapshot_download(listing.repo, revision=listing.commit, local_dir=folder, allow_patterns=[glob.escape(file.path)])


@contextmanager
def _none_larger_than(file: RemoteFile) -> Iterator[None]:
    """The client for large files is native code. Raises DownloadError."""
    try:
        with no_file_larger_than(file.size):
            yield
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise _larger(file) from error


def _fetch(listing: Listing, file: RemoteFile, folder: Path) -> None:
    """One file, going on where an earlier process was: the client's own snapshot_download (2.4) begins files anew."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    target = folder / file.path
    part = folder / ".cache" / f"{hashlib.sha256(f'{file.path} {file.digest}'.encode()).hexdigest()[:32]}.incomplete"
    part.parent.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _Bounded(part, file) as opened:
        if opened.tell() > file.size:
            opened.truncate(0)
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}  # a compressed body could not be gone on from
        url = hf_hub_url(listing.repo, file.path, revision=listing.commit)
        http_get(url, opened, resume_size=opened.tell(), headers=headers, expected_size=file.size, displayed_filename=file.path)
    part.replace(target)


class _Bounded(io.BufferedWriter):
    """A file that takes no more bytes than the listing promised: room was looked for by that, and the client inflates what comes."""

    def __init__(self, path: Path, file: RemoteFile) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._file = file

    def write(self, data: Any) -> int:
        """Raises DownloadError."""
        if self.tell() + len(memoryview(data)) > self._file.size:
            raise _larger(self._file)
        return super().write(data)


def _larger(file: RemoteFile) -> DownloadError:
    return DownloadError(f"{file.path} is larger than the {file.size:,} bytes that its listing has")


@contextmanager
def _explained(repo: str, revision: str) -> Iterator[None]:
    from httpx2 import HTTPError
    from huggingface_hub import constants, errors

    where = f"Hugging Face ({constants.ENDPOINT})"
    try:
        yield
    except errors.GatedRepoError as error:
        raise DownloadError(f"{repo} is gated: accept its terms on its page, then set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise DownloadError(f"{repo} has no revision {revision!r} on {where}") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise DownloadError(f"there is no model {repo!r} on {where}, or it is private and HF_TOKEN is not set") from error
    except (HTTPError, errors.LocalEntryNotFoundError, OSError, RuntimeError) as error:
        raise DownloadError(
            f"{repo} could not be downloaded from {where}: {_short(error)}. Run it again: it resumes where it stopped"
        ) from error


def _short(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:300].rstrip(".")
