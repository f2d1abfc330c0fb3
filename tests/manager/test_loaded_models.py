"""What a manager had loaded is known to the one that takes its place, and nothing else is made of the file."""

import asyncio

import pytest

from src.manager.loaded_models import Loaded, LoadedModels
from src.manager.manager import Manager, load_first
from src.settings import Settings


def test_what_was_written_last_is_read(tmp_path):
    path = tmp_path / "loaded.json"
    assert LoadedModels(path).read() == Loaded()
    roster = LoadedModels(path)
    roster.write(Loaded("a", ("a", "b")))
    roster.write(Loaded(None, ("b",)))
    assert LoadedModels(path).read() == Loaded(None, ("b",))
    roster.write(Loaded())
    assert LoadedModels(path).read() == Loaded()


def test_a_file_that_was_removed_is_written_again(tmp_path):
    path = tmp_path / "loaded.json"
    models = LoadedModels(path)
    models.write(Loaded("a", ("a",)))
    path.unlink()
    models.write(Loaded("a", ("a",)))
    assert LoadedModels(path).read() == Loaded("a", ("a",))


def test_a_broken_file_counts_as_none(tmp_path):
    path = tmp_path / "loaded.json"
    for content in (b"", b'{"models": ["a', b"[]", b'{"models": 3}', b"\xff"):
        path.write_bytes(content)
        assert LoadedModels(path).read() == Loaded()


def test_a_folder_that_cannot_be_written_to_costs_nothing(tmp_path):
    roster = LoadedModels(tmp_path / "absent" / "loaded.json")
    roster.write(Loaded("a", ("a",)))
    assert roster.read() == Loaded()


@pytest.mark.slow
def test_a_manager_that_takes_anothers_place_loads_what_that_one_had(tmp_path, model_path):
    (folder := tmp_path / "models").mkdir()
    for name in "abc":
        (folder / f"{name}.gguf").symlink_to(model_path)
    settings = Settings(
        models_dir=str(folder), log_dir=str(tmp_path / "logs"), context_length=256, max_parallel_sequences=2, threads=1,
        max_concurrent_models=2,
    )  # fmt: skip

    async def main() -> None:
        first = Manager(settings, tmp_path)
        await first.switch("c", None)
        await first.load("b")
        first.note_loaded()
        await first.close()
        second = Manager(settings, tmp_path)
        try:
            await load_first(second)
            assert second.fleet.wanted() == ["b", "c"]
            assert second.default_model(await second.folder.recent()) == "c"
        finally:
            await second.close()

    asyncio.run(asyncio.wait_for(main(), 100))
