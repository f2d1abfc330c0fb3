"""MODELS_DIR with several folders: one list, in which a model that lies in two of them is one and different ones have different names."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from src.catalog import Catalog, Library, Listing, ModelEntry, stamps
from src.settings import Settings
from tests.support.model_files import gguf_bytes, put
from tests.support.model_stores import OllamaStore, hub_cache

GONE = "its folder {} is not there"


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    monkeypatch.setattr(stamps, "SETTLE_SECONDS", -60.0)  # every change is old enough


@pytest.fixture
def folders(tmp_path) -> list[Path]:
    """The first is written to; the others are called other, more and last."""
    for name in ("own", "other", "more", "last"):
        (tmp_path / name).mkdir()
    return [tmp_path / name for name in ("own", "other", "more", "last")]


def library(folders: list[Path]) -> Library:
    return Library(folders[0], pytest.fail, folders[1:])


def look(folders: list[Path]) -> dict[str, ModelEntry]:
    return dict(library(folders).look().entries)


def where(entry: ModelEntry) -> list[str]:
    return [place.folder for place in entry.places]


def model(architecture: str) -> bytes:
    return gguf_bytes({"general.architecture": architecture})


def test_the_setting_is_a_list_with_commas_of_which_the_first_is_written_to():
    settings = Settings(models_dir=" m , ~/n,/abs/o,m,, ")
    assert settings.models_paths == (settings.models_path, Path.home() / "n", Path("/abs/o"))
    assert settings.shown_models_dir == "m/ or ~/n/ or /abs/o/ or m/"
    with pytest.raises(ValueError, match="the name of a folder"):
        Settings(models_dir=" , ")


def test_models_toml_is_the_first_folders_and_is_for_all_models(folders):
    put(folders[1], "chat.gguf")
    put(folders[1], "models.toml", content=b'[chat]\naliases = ["wrong"]\n')
    put(folders[0], "models.toml", content=b'[chat]\naliases = ["right"]\ntemperature = 0.5\n')
    listing = library(folders).look()
    assert (listing.find("right").name, listing.find("right").options.temperature) == ("chat", 0.5)
    assert listing.name_of("wrong") == "wrong"


# The same model in two places


def hard_link(source: Path, target: Path) -> None:
    target.hardlink_to(source)


def symbolic_link(source: Path, target: Path) -> None:
    target.symlink_to(source)


@pytest.mark.parametrize("same", [hard_link, symbolic_link, shutil.copy])
def test_a_model_in_two_folders_is_one_entry_with_two_places(folders, same):
    put(folders[0], "chat.gguf")
    put(folders[1], "chat/x.gguf")
    (folders[1] / "chat/x.gguf").unlink()
    same(folders[0] / "chat.gguf", folders[1] / "chat/x.gguf")
    entries = look(folders)
    assert list(entries) == ["chat"]
    assert (where(entries["chat"]), entries["chat"].path) == (["own", "other"], str(folders[0] / "chat.gguf"))


def test_the_same_file_by_another_name_is_the_same_model_by_two_names(folders):
    put(folders[0], "mine.gguf", content=model("a"))
    (folders[1] / "theirs.gguf").hardlink_to(folders[0] / "mine.gguf")
    store = OllamaStore(folders[2])
    store.model("registry.ollama.ai/library/tiny/latest", model("b"))
    hub_cache(folders[3], content=model("b"))
    listing = library(folders).look()
    assert {name: where(entry) for name, entry in listing.entries.items()} == {"mine": ["own", "other"], "tiny:latest": ["more", "last"]}
    assert [listing.find(name).name for name in ("theirs", "tiny", "Tiny-2B-GGUF")] == ["mine", "tiny:latest", "tiny:latest"]


def test_two_files_of_the_only_folder_stay_two_models(folders):
    put(folders[0], "a.gguf")
    (folders[0] / "b.gguf").symlink_to("a.gguf")
    assert list(look(folders[:1])) == ["a", "b"]


def test_folders_of_safetensors_are_the_same_if_their_configs_are_too(folders):
    for folder in folders[:3]:
        put(folder, "chat/model.safetensors", "chat/config.json")
    put(folders[2], "chat/config.json", content=b"{} ")
    assert {name: where(entry) for name, entry in look(folders).items()} == {"chat": ["own", "other"], "chat@more": ["more"]}


def test_a_model_with_other_defaults_is_another_model(folders):
    """Ollama's names for one file with different parameters are different models to its users."""
    store = OllamaStore(folders[1])
    store.model("registry.ollama.ai/library/tiny/cold", gguf_bytes(), {"temperature": 0.1})
    store.model("registry.ollama.ai/library/tiny/hot", gguf_bytes(), {"temperature": 1.5})
    assert list(look(folders)) == ["tiny:cold", "tiny:hot"]


# Different models with the same name


def test_different_models_of_one_name_have_names_of_their_own(folders):
    for folder, architecture in zip(folders, "abcd", strict=True):
        put(folder, "chat.gguf", content=model(architecture))
    (folders[3] / "chat.gguf").rename(folders[3] / "spare")
    hub_cache(folders[3], "org/chat", content=model("d"))
    entries = look(folders)
    assert {name: where(entry)[0] for name, entry in entries.items()} == {
        "chat": "own",
        "chat@other": "other",
        "chat@more": "more",
        "chat@huggingface": "last",
    }
    assert {name: where(entry)[0] for name, entry in look([*folders[:2], folders[3], folders[2]]).items()} == {
        name: where(entry)[0] for name, entry in entries.items()
    }, "a name does not depend on what comes between"


def test_weights_of_the_same_shape_that_differ_somewhere_are_different_models(folders):
    whole = gguf_bytes(tensors={"token_embd.weight": (1024, 4096)})  # 16 MiB
    for offset, folder in ((-1, folders[0]), (len(whole) // 2, folders[1])):
        changed = bytearray(whole)
        changed[offset] = 1
        put(folder, "chat.gguf", content=bytes(changed))
    assert list(look(folders)) == ["chat", "chat@other"]


def test_a_broken_model_takes_no_name_from_a_whole_one(folders):
    put(folders[0], "chat.gguf", content=gguf_bytes()[:-1])
    put(folders[1], "chat.gguf")
    assert {name: entry.problem is None for name, entry in look(folders).items()} == {"chat": True, "chat@own": False}


def test_a_name_of_another_programs_never_takes_one_that_is_given(folders):
    put(folders[0], "tiny.gguf", "chat.gguf", content=model("a"))
    put(folders[0], "models.toml", content=b'[chat]\naliases = ["small"]\n')
    store = OllamaStore(folders[1])
    for name in ("tiny", "small", "free"):
        store.model(f"registry.ollama.ai/library/{name}/latest", model(name))
    listing = library(folders).look()
    names = ("tiny", "small", "free", "small:latest")
    assert [listing.find(name).name for name in names] == ["tiny", "chat", "free:latest", "small:latest"]
    assert listing.is_visible("free", ["free:latest"])
    assert not listing.is_visible("small", ["small:latest"])


# Folders that are not there, or whose disks fail


def problems(listing: Listing) -> dict[str, str | None]:
    return {name: entry.problem for name, entry in listing.entries.items()}


def test_a_further_folder_that_is_missing_is_told_and_costs_nothing_else(folders):
    put(folders[0], "chat.gguf")
    folders[1].rmdir()
    listing = library(folders).look()
    assert problems(listing) == {"chat": None}
    assert listing.unreadable == (f"{folders[1]} is not there",)


@pytest.mark.parametrize("lost", [0, 1], ids=["the first", "a further one"])
def test_models_of_a_folder_that_vanishes_fail_with_the_reason_and_come_back_with_it(folders, lost):
    put(folders[lost], "chat.gguf")
    put(folders[1 - lost], "other.gguf")
    found = library(folders)
    before = found.look()
    folders[lost].rename(away := folders[lost].with_name("away"))
    listing = found.look()
    assert problems(listing) == {"chat": GONE.format(folders[lost]), "other": None}
    assert listing.unreadable == (f"{folders[lost]} is not there",)
    assert found.look() is listing, "not scanned again"
    away.rename(folders[lost])
    assert problems(found.look()) == problems(before) == {"chat": None, "other": None}
    assert found.look().entries["chat"].version == before.entries["chat"].version, "what is loaded need not be loaded again"
    assert found.look().unreadable == ()


def test_a_mount_point_that_is_left_empty_counts_as_gone(folders, monkeypatch):
    put(folders[1], "chat.gguf")
    found = library(folders)
    found.look()
    monkeypatch.setattr(found._catalogs[1], "_device", -1)  # as if it had been on another disk
    shutil.rmtree(folders[1])
    folders[1].mkdir()
    assert problems(found.look()) == {"chat": GONE.format(folders[1])}


def test_a_folder_that_is_emptied_is_empty(folders):
    put(folders[1], "chat.gguf")
    found = library(folders)
    found.look()
    (folders[1] / "chat.gguf").unlink()
    assert problems(found.look()) == {}


@pytest.mark.parametrize("code", [errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE])
@pytest.mark.parametrize("call", ["scandir", "stat"])
def test_models_on_a_disk_that_fails_have_its_error_and_others_go_on(folders, monkeypatch, call, code):
    put(folders[1], "shelf/chat/x.gguf")
    put(folders[0], "other.gguf")
    found = library(folders)
    found.look()
    works, fails = getattr(os, call), True

    def failing(path, *args, **named):
        if fails and str(path).startswith(str(folders[1])):
            raise OSError(code, os.strerror(code), str(path))
        return works(path, *args, **named)

    put(folders[1], "new")  # so that it is looked at
    monkeypatch.setattr(os, call, failing)
    scanned: list[Catalog] = []
    monkeypatch.setattr(Catalog, "scan", lambda self, scan=Catalog.scan: scanned.append(self) or scan(self))
    listing = found.look()
    assert scanned == [found._catalogs[1]], "the others are not looked through because one fails"
    assert (listing.entries["other"].problem, list(listing.entries)) == (None, ["chat", "other"])
    assert listing.entries["chat"].problem == f"{folders[1]} cannot be read: {os.strerror(code)}"
    assert listing.unreadable == (f"{folders[1]} may not be read: {os.strerror(code)}",)
    fails = False
    assert problems(found.look()) == {"chat": None, "other": None}


def test_a_name_whose_disk_is_gone_is_not_answered_by_another_model(folders):
    put(folders[0], "chat.gguf", content=model("a"))
    put(folders[1], "chat.gguf", content=model("b"))
    found = library(folders)
    found.look()
    shutil.rmtree(folders[0])
    assert problems(found.look()) == {"chat": GONE.format(folders[0]), "chat@other": None}


def test_the_same_model_elsewhere_takes_its_place(folders):
    for folder in folders[:2]:
        put(folder, "chat.gguf")
    found = library(folders)
    found.look()
    shutil.rmtree(folders[0])
    [entry] = found.look().entries.values()
    assert (entry.name, entry.problem, entry.path) == ("chat", None, str(folders[1] / "chat.gguf"))
