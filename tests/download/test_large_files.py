"""What Hugging Face's client fetches by its own protocol, which no test hub speaks, is held to its listing as all other files are."""

import resource
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from src.download.errors import DownloadError
from src.download.huggingface import HuggingFace
from src.download.source import Listing, RemoteFile

FILES = [RemoteFile("a.safetensors", 2000), RemoteFile("b.safetensors", 5000)]


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """Fetches FILES, of which the client writes as many bytes as it is told here."""
    monkeypatch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", 1000)

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
