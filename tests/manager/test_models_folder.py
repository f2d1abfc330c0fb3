"""The models folder is read in a thread, by one at a time, and for requests only where the last look is old."""

import asyncio
import os
import threading
import time

import pytest

from src.catalog import Library, Listing
from src.errors import ModelNotFound
from src.manager import models_folder
from src.manager.manager import Manager
from src.manager.models_folder import ModelsFolder
from src.settings import Settings
from tests.support.model_files import put


class Counted(Library):
    """A real library that counts its looks, and sees which thread makes them and whether two overlap."""

    looks = 0
    busy = False
    thread: threading.Thread | None = None

    def look(self) -> Listing:
        assert not self.busy, "two looks at once"
        self.busy, self.thread = True, threading.current_thread()
        try:
            self.looks += 1
            return super().look()
        finally:
            self.busy = False


@pytest.fixture
def library(tmp_path) -> Counted:
    put(tmp_path, "a.gguf")
    return Counted(tmp_path, pytest.fail)


def test_requests_share_a_look_that_is_recent_and_it_is_made_in_a_thread(library):
    async def main() -> None:
        folder = ModelsFolder(library)
        listings = [*await asyncio.gather(*(folder.recent() for _ in range(50))), *[await folder.recent() for _ in range(50)]]
        assert [list(listing.entries) for listing in listings] == [["a"]] * 100
        assert library.looks == 1
        assert library.thread is not threading.main_thread()

    asyncio.run(main())


def test_a_new_model_is_found_within_a_second_by_requests_and_at_once_by_who_asks_for_what_is_there_now(library, tmp_path):
    async def main() -> None:
        folder = ModelsFolder(library)
        await folder.recent()
        put(tmp_path, "b.gguf")
        put_at = time.monotonic()
        assert list((await folder.current()).entries) == ["a", "b"]
        put(tmp_path, "c.gguf")
        while "c" not in (await folder.recent()).entries:
            assert time.monotonic() - put_at < 30, "it is never found"
            await asyncio.sleep(0.01)
        assert models_folder.FRESH_SECONDS < 1

    asyncio.run(main())


def test_who_asks_while_another_looks_gets_a_look_of_its_own(library):
    """What was put there after the first look began may have been missed by it."""

    async def main() -> None:
        folder = ModelsFolder(library)
        await asyncio.gather(folder.current(), folder.current())
        assert library.looks == 2

    asyncio.run(main())


@pytest.fixture
def share(monkeypatch):
    """A folder of this name is on a share whose server is lost, until the event is set."""
    monkeypatch.setattr(models_folder, "PATIENCE", 0.1)
    monkeypatch.setattr(models_folder, "FIRST_PATIENCE", 0.1)
    monkeypatch.setattr(models_folder, "HANGS_SECONDS", 0.2)
    answers, scandir = threading.Event(), os.scandir

    def hanging(path: object = ".") -> object:
        if os.path.basename(str(path)) == "share":
            answers.wait()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", hanging)
    yield answers
    answers.set()


async def until(folder: ModelsFolder, models: list[str], *, hangs: bool) -> None:
    give_up = time.monotonic() + 30
    while True:
        began, listing = time.monotonic(), await folder.current()
        if hangs:
            assert time.monotonic() - began < 10
            assert list(listing.entries) == models
        if (list(listing.entries), models_folder.HANGS in listing.unreadable) == (models, hangs):
            return
        assert time.monotonic() < give_up
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("known", [True, False])
def test_a_look_that_hangs_leaves_the_last_listing_which_says_so(library, tmp_path, share, known):
    async def main() -> None:
        folder = ModelsFolder(library)
        if known:
            await until(folder, ["a"], hangs=False)
        put(tmp_path, "share/b.gguf")
        await until(folder, ["a"] if known else [], hangs=True)
        looks = library.looks
        await asyncio.gather(*(folder.recent() for _ in range(50)))
        assert library.looks == looks, "it is not asked again while it hangs"
        share.set()
        await until(folder, ["a", "share"], hangs=False)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_requests_for_a_loaded_or_the_default_model_do_not_look_at_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(models_folder, "FRESH_SECONDS", 3600)
    looks = []

    async def main() -> None:
        manager = Manager(Settings(inference_engine="echo", log_dir=str(tmp_path / "logs")), tmp_path)
        look = manager.folder._library.look
        monkeypatch.setattr(manager.folder._library, "look", lambda: looks.append(1) or look())
        try:
            await manager.load("echo")
            before = len(looks)
            for name in (None, "echo") * 20:
                assert (await manager.resolve(name)).model == "echo"
            assert (before > 0, len(looks)) == (True, before)
            with pytest.raises(ModelNotFound):
                await manager.resolve("nowhere")
            assert len(looks) == before + 1, "what is not known is looked for"
            assert (await manager.resolve(None, among=("echo",))).model == "echo"
            assert len(looks) == before + 1
            with pytest.raises(ModelNotFound, match="Models here: none"):
                await manager.resolve("echo", among=("other",))
            assert len(looks) == before + 2, "so is what the caller may not see yet"
        finally:
            await manager.close()

    asyncio.run(main())
