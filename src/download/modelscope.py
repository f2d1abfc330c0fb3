"""ModelScope by its own client. MODELSCOPE_ENDPOINT, MODELSCOPE_API_TOKEN and the like are the client's own settings."""

import glob
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.download.errors import DownloadError
from src.download.reason import english
from src.download.reference import Reference
from src.download.source import Listing, RemoteFile, Source, no_file_larger_than

OWN_BYTES = 64 * 2**20  # that a file of the client's own, or a log, may have


class ModelScope(Source):
    name = "modelscope"

    def list(self, reference: Reference) -> Listing:
        from modelscope_hub import HubApi

        repo, revision = reference.repo, reference.revision
        with _explained(repo, revision):
            found = HubApi(endpoint=HubApi().resolve_endpoint_for_read(repo)).list_repo_files(repo, "model", revision=revision)
        files = [RemoteFile(file.path, file.size, f"sha256:{file.sha256}" if file.sha256 else None) for file in found if not file.is_dir]
        # The listing has no commit: what it holds stands for it.
        state = "".join(f"{file.path} {file.size} {file.digest}\n" for file in sorted(files, key=lambda file: file.path))
        return Listing(source=self.name, repo=repo, revision=revision, commit=hashlib.sha256(state.encode()).hexdigest()[:40], files=files)

    def fetch(self, listing: Listing, folder: Path) -> None:
        from modelscope.hub.snapshot_download import snapshot_download

        # A comma would be read as the end of a pattern. A question mark in its place would match a slash, and so another folder.
        patterns = [glob.escape(file.path).replace(",", "[+--]") for file in listing.files]
        # The client asks for a listing of its own. It gets files side by side, so that all have the largest one's bound.
        largest = max([OWN_BYTES, *(file.size for file in listing.files)])
        with _explained(listing.repo, listing.revision), no_file_larger_than(largest):
            snapshot_download(
                listing.repo,
                revision=listing.revision,
                local_dir=str(folder),
                cache_dir=str(folder / ".cache"),  # its locks
                allow_patterns=patterns,
            )


@contextmanager
def _explained(repo: str, revision: str) -> Iterator[None]:
    from modelscope_hub import errors
    from requests.exceptions import RequestException

    try:
        yield
    except (errors.NotExistError, errors.InvalidParameter) as error:
        raise DownloadError(f"there is no model {repo!r} with the revision {revision!r} on ModelScope") from error
    except (errors.AuthenticationError, errors.PermissionDeniedError) as error:
        raise DownloadError(f"{repo} is not open to all: set MODELSCOPE_API_TOKEN") from error
    except errors.FileDownloadError as error:
        name, reason = next(iter(error.failed_files.items()))
        raise DownloadError(
            f"{name} of {repo} could not be downloaded: {english(reason)}. Run it again: it resumes where it stopped"
        ) from error
    except (errors.HubError, RequestException, OSError) as error:
        raise DownloadError(
            f"{repo} could not be downloaded from ModelScope: {english(error)}. Run it again: it resumes where it stopped"
        ) from error
