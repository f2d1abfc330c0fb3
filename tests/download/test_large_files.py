"""What the hubs' clients write by themselves is held to the listing all the same: large files of Hugging Face, all of ModelScope."""

import resource
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from src.download import modelscope
from src.download.errors import DownloadError
from src.download.huggingface import HuggingFace
from src.download.modelscope import ModelScope
from src.download.source import Listing, RemoteFile

FILES = [RemoteFile("a.safetensors", 2000), RemoteFile("b.safetensors", 5000)]


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """Fetches FILES, of which the client writes as many bytes as it is told here."""
    monkeypatch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", 1000)  # above it, the client has a protocol that no test hub speaks

    def fetch(sizes: dict[str, int]) -> dict[str, int]:
        def snapshot_download(repo: str, *, revision: str, local_dir: Path, allow_patterns: list[str]) -> None:
            for name in allow_patterns:
                with (local_dir / name).open("wb", buffering=0) as file:
                    for _ in range(0, sizes[name], 1000):
                        assert file.write(b"x" * 1000) == 1000

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        listing = Listing(source="huggingface", repo="o/x", revision="main", commit="0" * 40, files=FILES)
        HuggingFace().fetch(listing, tmp_path)
        return {path.name: path.stat().st_size for path in tmp_path.iterdir()}

    return fetch


def test_each_comes_whole(fetch):
    assert fetch({"a.safetensors": 2000, "b.safetensors": 5000}) == {"a.safetensors": 2000, "b.safetensors": 5000}


@pytest.mark.parametrize("larger", ["a.safetensors", "b.safetensors"])
def test_one_that_is_larger_than_its_listing_has_it_is_not_written_on(fetch, tmp_path, larger):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    promised = {file.path: file.size for file in FILES}
    with pytest.raises(DownloadError, match=rf"{larger} is larger than the {promised[larger]:,} bytes that its listing has"):
        fetch({**promised, larger: 50_000})
    assert (tmp_path / larger).stat().st_size == promised[larger]
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before, "for other files there is no such bound"


@pytest.mark.parametrize("listed", [5000, 100])
def test_modelscopes_client_writes_no_file_beyond_the_largest_that_is_listed(tmp_path, monkeypatch, listed):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(modelscope, "OWN_BYTES", 3000)

    def snapshot_download(repo: str, *, local_dir: str, **others: object) -> None:
        with Path(local_dir, "a.safetensors").open("wb", buffering=0) as file:
            for _ in range(100):
                file.write(b"x" * 1000)

    module = pytest.importorskip("modelscope.hub.snapshot_download")
    monkeypatch.setattr(module, "snapshot_download", snapshot_download)
    files = [RemoteFile("a.safetensors", listed), RemoteFile("config.json", 10)]
    listing = Listing(source="modelscope", repo="o/x", revision="master", commit="0" * 40, files=files)
    with pytest.raises(DownloadError, match="could not be downloaded from ModelScope: File too large"):
        ModelScope().fetch(listing, tmp_path)
    assert (tmp_path / "a.safetensors").stat().st_size == max(listed, 3000), "the client has files of its own"
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before
