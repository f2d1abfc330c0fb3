"""Nothing but an earlier version of the same download is ever replaced."""

import os

import pytest

from src.download.errors import DownloadError
from src.download.source import Listing
from src.download.store import Store


@pytest.fixture
def store(tmp_path):
    """With a model that has been downloaded and not put into its place yet."""
    store = Store(tmp_path)
    store.staging("x").mkdir(parents=True)
    (store.staging("x") / "new.gguf").write_text("new")
    store.complete("x", Listing(source="pypi", repo="x", revision="latest", commit="1.0", files=[]), [])
    return store


def operators_file(place):
    place.write_text("the operator's")


def operators_folder(place):
    place.mkdir()
    (place / "mine.gguf").write_text("the operator's")


def broken_link(place):
    place.symlink_to("/absent")


@pytest.mark.parametrize("make", [operators_file, operators_folder, broken_link])
def test_what_came_into_its_place_meanwhile_stays(store, make):
    make(store.place("x"))
    before = store.place("x").lstat().st_ino
    with pytest.raises(DownloadError, match="is there already and came from elsewhere"):
        store.is_free("x")
    with pytest.raises(DownloadError, match="is there already and came from elsewhere"):
        store.install("x")
    with pytest.raises(DownloadError, match="is no download any more"):
        store.replace("x")
    assert store.place("x").lstat().st_ino == before
    assert not store.previous("x").exists()


def test_an_earlier_version_is_replaced_and_kept(store):
    store.install("x")
    store.staging("x").mkdir()
    (store.staging("x") / "newer.gguf").write_text("newer")
    store.replace("x")
    assert (store.place("x") / "newer.gguf").exists()
    assert (store.previous("x") / "new.gguf").exists()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("../other.json")])
def test_a_record_that_is_no_file_of_its_own_is_none(store, make):
    """A pipe would be waited for, a device has no end, and a link may lead to any file."""
    store.install("x")
    assert store.record("x") is not None
    record = store.place("x") / ".source.json"
    record.rename(store.root / "other.json")
    make(record)
    assert store.record("x") is None
