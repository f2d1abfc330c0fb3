"""Names that requests use, and when the folder behind them is scanned."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from src.catalog import Catalog, Library, ModelEntry, OneModel, stamps
from src.errors import ModelNotFound
from tests.support.model_files import gguf_bytes, put


def test_an_adapter_is_another_name_of_its_model_and_known_as_one_at_once(tmp_path):
    put(tmp_path, "chat.gguf", "adapters/sql.gguf")
    library = Library(tmp_path, pytest.fail)
    assert library.look().find("chat").name == "chat"
    (tmp_path / "models.toml").write_text('[chat]\naliases = ["small"]\n[chat.adapters]\nsql = "adapters/sql.gguf"\n')
    assert library.look().find("sql").name == library.look().find("small").name == "chat"
    assert {name: library.look().is_adapter(name) for name in ("sql", "small", "chat", "none")} == {
        "sql": True,
        "small": False,
        "chat": False,
        "none": False,
    }


def test_the_template_that_models_toml_names_is_the_one_that_is_shown(tmp_path):
    put(tmp_path, "chat.gguf", content=gguf_bytes({"general.architecture": "llama", "tokenizer.chat_template": "<think>"}))
    library = Library(tmp_path, pytest.fail)
    assert library.look().find("chat").facts.capabilities == ("chat_template", "thinking")
    (tmp_path / "own.jinja").write_text("{{ tools }}")
    (tmp_path / "models.toml").write_text('[chat]\nchat_template = "own.jinja"\n')
    assert library.look().find("chat").facts.capabilities == ("chat_template", "tools")
    (tmp_path / "own.jinja").write_text("{{ messages }}")
    assert library.look().find("chat").facts.capabilities == ("chat_template",)


def test_a_library_of_one_model_looks_at_no_folder():
    library = OneModel(ModelEntry(name="echo", path="", format="echo", size_bytes=0, modified=0))
    assert list(library.look().entries) == ["echo"]
    assert library.look().find("echo").name == library.look().name_of("echo") == "echo"
    with pytest.raises(ModelNotFound, match="Models here: echo"):
        library.look().find("other")


# When it is scanned


@pytest.fixture
def scans(monkeypatch) -> list[float]:
    """One entry a scan."""
    found = []
    scan = Catalog.scan
    monkeypatch.setattr(Catalog, "scan", lambda self: found.append(time.monotonic()) or scan(self))
    monkeypatch.setattr(stamps, "SETTLE_SECONDS", -60.0)  # every change is old enough
    return found


@pytest.fixture
def models(tmp_path) -> Path:
    put(tmp_path, "a.gguf", "deep/er/b.gguf", "c/model.safetensors", "c/config.json", "adapters/sql.gguf")
    put(tmp_path, "models--o--d/snapshots/1/d.gguf", "models--o--d/snapshots/2/d.gguf")
    (tmp_path / "models.toml").write_text('[a]\naliases = ["x"]\nchat_template = "own.jinja"\nlora = ["adapters/sql.gguf"]\n')
    (tmp_path / "own.jinja").write_text("{{ messages }}")
    return tmp_path


def test_an_unchanged_folder_is_scanned_once_however_often_it_is_asked(models, scans):
    library = Library(models, pytest.fail)
    first = library.look().entries
    for _ in range(20):
        assert library.look().entries == first
        library.look().find("x")
        with pytest.raises(ModelNotFound):
            library.look().find("none")
    assert len(scans) == 1


def rewrite(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def rename_into_place(path: Path, content: bytes) -> None:
    """As a downloader and an editor do; with the same size and time as what was there."""
    info = path.stat()
    new = path.with_name(".new")
    new.write_bytes(content)
    os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns))
    new.rename(path)


def keep_times(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """An edit in place that sets the time of modification back, as rsync's."""

    def edit(models: Path) -> None:
        path = models / "models.toml"
        info = path.stat()
        change(models)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))

    return edit


CHANGES: dict[str, Callable[[Path], object]] = {
    "a model more": lambda models: put(models, "new.gguf"),
    "a model more, deep down": lambda models: put(models, "deep/er/still/new.gguf"),
    "a model less": lambda models: (models / "a.gguf").unlink(),
    "a folder less": lambda models: shutil.rmtree(models / "deep"),
    "a folder renamed": lambda models: (models / "deep").rename(models / "other"),
    "a file that grows": lambda models: (models / "a.gguf").write_bytes(gguf_bytes() + b"x"),
    "a file renamed into place": lambda models: rename_into_place(models / "a.gguf", gguf_bytes()),
    "a download begun": lambda models: put(models, "e.gguf.incomplete"),
    "a config edited in place": lambda models: (models / "c/config.json").write_text('{"model_type": "x"}'),
    "models.toml edited in place": lambda models: rewrite(models / "models.toml", '"x"', '"y"'),
    "models.toml edited in place, its time kept": keep_times(lambda models: rewrite(models / "models.toml", '"x"', '"y"')),
    "models.toml renamed into place": lambda models: rename_into_place(models / "models.toml", b"[a]\naliases = []" + b"\n" * 60),
    "models.toml gone": lambda models: (models / "models.toml").unlink(),
    "a template of models.toml": lambda models: (models / "own.jinja").write_text("{{ tools }}"),
    "an adapter of models.toml": lambda models: (models / "adapters/sql.gguf").write_bytes(b"x"),
    "another current revision": lambda models: put(models, "models--o--d/refs/main", content=b"1"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changes_in_the_folder_is_seen_at_once_by_one_scan(models, scans, change):
    library = Library(models, lambda message: None)
    library.look()
    change(models)
    fresh = Library(models, lambda message: None)
    for _ in range(3):
        assert library.look().entries == fresh.look().entries
    assert len(scans) == 3, "one by each, and one more"


def test_a_download_is_followed_while_it_grows(models, scans):
    library = Library(models, pytest.fail)
    whole = gguf_bytes()
    with (models / "e.gguf.incomplete").open("wb") as file:
        for place in range(0, len(whole), 50):
            file.write(whole[place : place + 50])
            file.flush()
            assert library.look().find("e").size_bytes == min(place + 50, len(whole))
            assert "download is incomplete" in library.look().find("e").problem
    before = len(scans)
    (models / "e.gguf.incomplete").rename(models / "e.gguf")
    assert library.look().find("e").problem is None
    assert len(scans) == before + 1


def test_a_link_whose_target_appears_is_seen(models, scans, tmp_path_factory):
    target = tmp_path_factory.mktemp("elsewhere") / "linked.gguf"
    (models / "linked.gguf").symlink_to(target)
    library = Library(models, pytest.fail)
    assert "linked" not in library.look().entries
    target.write_bytes(gguf_bytes())
    assert "linked" in library.look().entries
    assert len(scans) == 2


def test_what_changed_a_moment_ago_is_not_believed_to_be_all(models, scans, monkeypatch):
    """A file system's clock has steps: another change within the same one would look like none."""
    library = Library(models, pytest.fail)
    monkeypatch.setattr(stamps, "SETTLE_SECONDS", 3600.0)
    library.look()
    library.look()
    assert len(scans) == 2
    monkeypatch.setattr(stamps, "SETTLE_SECONDS", -60.0)
    library.look()
    assert len(scans) == 2


def test_a_wrong_models_toml_is_reported_once_and_found_right_again(models, scans):
    errors: list[str] = []
    library = Library(models, errors.append)
    assert library.look().find("x").name == "a"
    (models / "models.toml").write_text('[a]\nchat_template = ".hidden/own.jinja"\n')
    for _ in range(3):
        assert library.look().find("x").name == "a", "its last valid content stays in force"
    assert len(errors) == 1
    (models / ".hidden").mkdir()
    (models / ".hidden" / "own.jinja").write_text("{{ tools }}")
    assert "tools" in library.look().find("a").facts.capabilities
    with pytest.raises(ModelNotFound):
        library.look().find("x")
    before = len(scans)
    library.look().find("a")
    assert len(scans) == before


def test_threads_that_ask_at_once_share_a_scan(models, scans):
    library = Library(models, pytest.fail)
    found: list[dict[str, ModelEntry]] = []
    threads = [threading.Thread(target=lambda: found.append(library.look().entries)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert all(entries == found[0] for entries in found)
    assert len(scans) == 1


def test_no_caller_can_change_the_listing_that_others_have(models, scans):
    library = Library(models, pytest.fail)
    with pytest.raises(AttributeError):
        library.look().entries.clear()
    assert "a" in library.look().entries


def test_the_makers_sampling_is_the_default_where_models_toml_leaves_it_open(tmp_path):
    put(tmp_path, "chat/chat.gguf", "other.gguf")
    config = {"temperature": 0.2, "top_p": 0.9, "top_k": 20, "max_new_tokens": 5, "eos_token_id": [2], "min_p": None}
    (tmp_path / "chat/generation_config.json").write_text(json.dumps(config))
    library = Library(tmp_path, pytest.fail)
    before = library.look().find("chat")
    assert before.options.sampling() == {"temperature": 0.2, "top_p": 0.9, "top_k": 20}
    assert library.look().find("other").options.sampling() == {}
    (tmp_path / "models.toml").write_text('[chat]\naliases = ["small"]\ntemperature = 1.0\n')
    assert library.look().find("small").options.sampling() == {"temperature": 1.0, "top_p": 0.9, "top_k": 20}
    (tmp_path / "chat/generation_config.json").write_text('{"top_k": 40}')
    after = library.look().find("chat")
    assert after.options.sampling() == {"temperature": 1.0, "top_k": 40}
    assert after.version != before.version


@pytest.mark.parametrize("value", [-1, 2.5, "0.7", True, [0.7], float("nan")])
def test_a_makers_value_that_no_request_could_have_is_left_out(tmp_path, value):
    put(tmp_path, "chat/chat.gguf")
    (tmp_path / "chat/generation_config.json").write_text(json.dumps({"temperature": value, "top_p": 0.9}))
    assert Library(tmp_path, pytest.fail).look().find("chat").options.sampling() == {"top_p": 0.9}


def test_a_makers_file_that_is_not_json_is_told(tmp_path):
    put(tmp_path, "chat/chat.gguf")
    (tmp_path / "chat/generation_config.json").write_text("{")
    assert "generation_config.json is not JSON" in Library(tmp_path, pytest.fail).look().find("chat").problem
