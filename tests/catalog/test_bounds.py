"""However far links lead, a scan ends soon, says what it left out, and finds the models folder's own models."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src import ROOT
from src.catalog import Catalog, Library, bounds, folders, mounts, stamps
from tests.support.model_files import put, safetensors_bytes

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture
def models(tmp_path) -> Path:
    """A models folder with one model of its own, behind all others by its name."""
    put(tmp_path / "models", "z/own.gguf")
    return tmp_path / "models"


@pytest.fixture
def looked_at(monkeypatch) -> list[Path]:
    """Folders, as often as they are listed."""
    listed: list[Path] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(Path(path)) or scandir(path))
    return listed


def told(catalog: Catalog) -> list[str]:
    return [str(each) for each in catalog.unreadable]


def test_a_link_to_more_than_a_scan_looks_at_is_cut_off_by_name_and_the_folders_own_models_stay(models, tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_NAMES", 40)
    put(tmp_path, "disk/a/first.gguf", *(f"disk/m{folder}/{number}.txt" for folder in range(20) for number in range(10)))
    put(tmp_path, "disk/z/last.gguf")
    (models / "disk").symlink_to(tmp_path / "disk")
    catalog = Catalog(models)
    assert list(catalog.scan()) == ["disk", "z"]
    assert told(catalog) == [f"the rest of {models}/disk is skipped: it has more than 40 files and folders"]


def test_so_is_a_single_folder_of_too_many_files(models, tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_NAMES", 40)
    put(tmp_path, *(f"disk/{number}.txt" for number in range(41)))
    (models / "disk").symlink_to(tmp_path / "disk")
    catalog = Catalog(models)
    assert list(catalog.scan()) == ["z"]
    assert told(catalog) == [f"the rest of {models}/disk is skipped: it has more than 40 files and folders"]


def test_all_places_together_have_a_bound_and_links_do_not_take_it_from_the_folders_own(models, tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_ALL_NAMES", 60)
    put(tmp_path, *(f"disk/{number}/x.txt" for number in range(40)))
    (models / "a").symlink_to(tmp_path / "disk")
    (models / "b").symlink_to(tmp_path / "disk")
    catalog = Catalog(models)
    assert list(catalog.scan()) == ["z"]
    assert told(catalog)[0] == f"the rest of {models}/a is skipped: the models folder has more than 60 files and folders"


def test_folders_are_followed_to_a_depth_that_every_cache_keeps_to(models):
    put(models, f"deep{'/x' * 11}/found.gguf", f"deeper{'/x' * 12}/left_out.gguf", f"deeper{'/x' * 11}/y/left_out.gguf")
    catalog = Catalog(models)
    assert list(catalog.scan()) == ["deep", "z"]
    assert told(catalog) == [f"what lies more than 12 folders deep in {models}/deeper is skipped"], "once"


@on_linux
@pytest.mark.parametrize("target", ["/proc/sys/vm", "/proc/self", "/sys/kernel"])
def test_a_file_system_that_shows_a_systems_state_is_not_looked_at(models, target, looked_at):
    (models / "link").symlink_to(target)
    catalog = Catalog(models)
    assert list(catalog.scan()) == ["z"]
    assert told(catalog) == [
        f"{models}/link is skipped: it lies in a file system of the kind {target[1:].split('/')[0]}fs, which holds no models".replace(
            "procfs", "proc"
        )
    ]
    assert models / "link" not in looked_at


def test_such_file_systems_are_known_by_the_kernels_own_list(tmp_path, monkeypatch):
    (tmp_path / "mountinfo").write_text(
        "22 28 0:21 / /proc rw,nosuid shared:12 - proc proc rw\n"
        "28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "30 28 0:300 / /mnt/a\\040disk rw - nfs4 nas:/models rw\n"
        "31 28 0:26 / /dev/shm rw shared:4 - tmpfs tmpfs rw\n"
        "32 28 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    )
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mountinfo")
    monkeypatch.setattr(sys, "platform", "linux")
    assert mounts.state_devices() == {os.makedev(0, 21): "proc", os.makedev(0, 27): "cgroup2"}
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "absent")
    assert mounts.state_devices() == {}


def test_links_of_linked_folders_to_one_another_do_not_multiply(models, tmp_path, looked_at):
    """Twelve folders that all link to one another have 12! ways through them."""
    names = [f"f{number}" for number in range(12)]
    put(tmp_path, *(f"disk/{name}/{name}.gguf" for name in names))
    for name in names:
        for other in names:
            (tmp_path / "disk" / name / f"to-{other}").symlink_to(tmp_path / "disk" / other)
    (models / "disk").symlink_to(tmp_path / "disk")
    assert set(Catalog(models).scan()) == {*names, "z"}
    assert len(looked_at) < 20


def test_what_a_user_links_is_found_by_the_links_name(models, tmp_path):
    """A file, a folder of models on another disk, a hub's cache, and a second name beside the first."""
    put(tmp_path, "disk/chat.gguf", "disk/org/code.gguf", "store/single.gguf", "hub/models--o--cached/refs/main")
    put(tmp_path, "hub/models--o--cached/blobs/1234", content=safetensors_bytes())
    put(tmp_path, "hub/models--o--cached/blobs/5678", content=b"{}")
    snapshot = tmp_path / "hub/models--o--cached/snapshots/abcd"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../blobs/1234")
    (snapshot / "config.json").symlink_to("../../blobs/5678")
    put(models, "org/v2/v2.gguf")
    (models / "org/latest").symlink_to("v2")
    (models / "file.gguf").symlink_to(tmp_path / "store/single.gguf")
    (models / "disk").symlink_to(tmp_path / "disk")
    (models / "hub").symlink_to(tmp_path / "hub")
    catalog = Catalog(models)
    assert {name: entry.problem for name, entry in catalog.scan().items()} == dict.fromkeys(
        ["chat", "code", "file", "hub", "org/latest/v2.gguf", "v2", "z"]
    )
    assert told(catalog) == []


def test_a_link_that_takes_too_long_is_left_and_looked_at_again_later(models, tmp_path, monkeypatch):
    monkeypatch.setattr(stamps, "SETTLE_SECONDS", -60.0)
    monkeypatch.setattr(bounds, "LINK_SECONDS", 0.0)
    put(tmp_path, "disk/slow.gguf")
    (models / "disk").symlink_to(tmp_path / "disk")
    library = Library(models, pytest.fail)
    listing = library.look()
    assert list(listing.entries) == ["z"]
    assert listing.unreadable == (f"the rest of {models}/disk is skipped: what its links lead to takes longer than 0 s to look at",)
    monkeypatch.setattr(bounds, "LINK_SECONDS", 20.0)
    assert library.look() is listing, "not each time it is asked"
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + bounds.RETRY_SECONDS)
    assert list(library.look().entries) == ["disk", "z"]
    assert library.look().unreadable == ()


def test_files_that_are_no_part_of_a_model_are_not_looked_at_again_and_again(models):
    put(models, *(f"z/{number}.txt" for number in range(100)), "z/more.gguf")
    catalog = Catalog(models)
    catalog.scan()
    seen = {Path(path).name for path in catalog._stamps._stamps}
    assert seen == {"models", "z", "own.gguf", "more.gguf"}


def test_a_revision_that_goes_while_it_is_looked_at_breaks_no_listing(models):
    """A cache is cleaned up by its own client."""
    assert folders._current(models, [models / "gone", models / "z"], stamps.Stamps()) == models / "z"


@on_linux
def test_the_start_script_says_what_to_link_instead(tmp_path):
    (tmp_path / "all").symlink_to("/proc")
    [code] = re.findall(r"<<'EOF'\n(.+?)\nEOF\n", (ROOT / "scripts/start").read_text(), re.DOTALL)
    environ = {**os.environ, "MODELS_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert (
        f"{tmp_path}/all is skipped: it lies in a file system of the kind proc, which holds no models. Link to the folders" in done.stderr
    )
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}\n")
