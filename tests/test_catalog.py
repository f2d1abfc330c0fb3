"""What counts as a model in the models folder, and what it is called."""

import os
from pathlib import Path

import pytest

from src.catalog import Catalog


def put(root: Path, *names: str, content: bytes = b"weights") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def names(root: Path) -> list[str]:
    return list(Catalog(root).scan())


def paths(root: Path) -> dict[str, str]:
    return {name: str(Path(entry.path).relative_to(root)) for name, entry in Catalog(root).scan().items()}


def test_a_missing_folder_holds_no_models(tmp_path):
    assert Catalog(tmp_path / "absent").scan() == {}


def test_a_file_in_place_of_the_folder_holds_no_models(tmp_path):
    put(tmp_path, "models")
    assert Catalog(tmp_path / "models").scan() == {}


def test_a_file_is_named_after_its_stem(tmp_path):
    put(tmp_path, "Qwen2.5-0.5B.Q4_K_M.gguf")
    assert paths(tmp_path) == {"Qwen2.5-0.5B.Q4_K_M": "Qwen2.5-0.5B.Q4_K_M.gguf"}


def test_the_only_model_of_a_folder_is_named_after_the_folder(tmp_path):
    put(tmp_path, "smollm2/SmolLM2.Q4_1.gguf")
    assert paths(tmp_path) == {"smollm2": "smollm2/SmolLM2.Q4_1.gguf"}


def test_of_nested_folders_the_top_one_gives_the_name(tmp_path):
    put(tmp_path, "org/repo/deep/x.gguf", "other/repo/model.safetensors", "other/repo/config.json")
    assert paths(tmp_path) == {"org": "org/repo/deep/x.gguf", "other": "other/repo"}


def test_several_models_of_a_folder_are_named_one_by_one(tmp_path):
    put(tmp_path, "llama/a.gguf", "llama/inner/b.gguf", "llama/c-00001-of-00002.gguf", "llama/c-00002-of-00002.gguf")
    assert paths(tmp_path) == {"a": "llama/a.gguf", "b": "llama/inner/b.gguf", "c": "llama/c-00001-of-00002.gguf"}


def test_several_safetensors_folders_below_one_are_named_after_the_inner_ones(tmp_path):
    put(tmp_path, *(f"org/{name}/{file}" for name in ("one", "two") for file in ("model.safetensors", "config.json")))
    assert paths(tmp_path) == {"one": "org/one", "two": "org/two"}


def test_a_split_model_is_one_entry_whose_path_is_the_first_part(tmp_path):
    put(tmp_path, *(f"big/q4/big-{number:05}-of-00003.gguf" for number in (1, 2, 3)))
    put(tmp_path, *(f"loose-{number:05}-of-00002.gguf" for number in (1, 2)))
    assert paths(tmp_path) == {"big": "big/q4/big-00001-of-00003.gguf", "loose": "loose-00001-of-00002.gguf"}


def test_a_split_model_with_a_part_missing_is_no_model(tmp_path):
    put(tmp_path, "a-00001-of-00003.gguf", "a-00003-of-00003.gguf")
    put(tmp_path, "b/model-00002-of-00002.safetensors", "b/config.json")
    assert names(tmp_path) == []


def test_safetensors_need_their_config_beside_them(tmp_path):
    put(tmp_path, "whole/model.safetensors", "whole/config.json", "adapter/adapter_model.safetensors", "apart/config.json")
    put(tmp_path, "apart/weights/model.safetensors", "model.safetensors", "config.json")
    assert paths(tmp_path) == {"whole": "whole"}


def test_both_formats_in_one_folder_are_two_models(tmp_path):
    put(tmp_path, "m/model.safetensors", "m/config.json", "m/m.Q8_0.gguf")
    assert {name: entry.format for name, entry in Catalog(tmp_path).scan().items()} == {"m": "safetensors", "m.Q8_0": "gguf"}


def test_sizes_are_summed_and_the_newest_time_counts(tmp_path):
    put(tmp_path, "s/model-00001-of-00002.safetensors", content=b"12345")
    put(tmp_path, "s/model-00002-of-00002.safetensors", content=b"123")
    put(tmp_path, "s/config.json", "s/tokenizer.json")
    os.utime(tmp_path / "s/model-00001-of-00002.safetensors", (1_700_000_000.9, 1_700_000_000.9))
    os.utime(tmp_path / "s/model-00002-of-00002.safetensors", (1_600_000_000, 1_600_000_000))
    entry = Catalog(tmp_path).scan()["s"]
    assert (entry.size_bytes, entry.modified) == (8, 1_700_000_000)


@pytest.mark.parametrize(
    "name",
    ["mmproj-model-f16.gguf", "llava.mmproj-Q8.GGUF".lower(), ".hidden.gguf", ".cache/x.gguf", "x.gguf.part", "x.tmp/x.gguf", "x.txt"],
)
def test_what_is_no_model_is_left_out(tmp_path, name):
    put(tmp_path, name)
    assert names(tmp_path) == []


def test_an_mmproj_file_beside_a_model_does_not_make_two(tmp_path):
    put(tmp_path, "vision/model.gguf", "vision/mmproj-model.gguf")
    assert paths(tmp_path) == {"vision": "vision/model.gguf"}


def test_empty_files_are_left_out(tmp_path):
    put(tmp_path, "x.gguf", "d/model.safetensors", "d/config.json", content=b"")
    assert names(tmp_path) == []


def test_names_that_cannot_be_written_as_json_are_left_out(tmp_path):
    put(tmp_path, "line\nbreak.gguf")
    try:
        with open(os.fsencode(tmp_path) + b"/\xff.gguf", "wb") as file:
            file.write(b"weights")
    except OSError:
        pass  # this file system has no such names
    assert names(tmp_path) == []


def test_broken_links_are_left_out_and_good_ones_followed(tmp_path):
    root = tmp_path / "models"
    put(tmp_path, "store/x.gguf", "store/repo/y.gguf")
    root.mkdir()
    (root / "broken.gguf").symlink_to(tmp_path / "absent")
    (root / "file.gguf").symlink_to(tmp_path / "store/x.gguf")
    (root / "folder").symlink_to(tmp_path / "store/repo")
    assert names(root) == ["file", "folder"]


def test_links_in_a_circle_end(tmp_path):
    put(tmp_path, "a/x.gguf", "b/y.gguf")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "b/self").symlink_to(tmp_path / "b")
    assert paths(tmp_path) == {"a": "a/x.gguf", "b": "b/y.gguf"}


def test_a_folder_link_is_a_second_name(tmp_path):
    put(tmp_path, "real/x.gguf")
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    assert names(tmp_path) == ["alias", "real"]


def test_models_that_would_share_a_name_are_all_listed(tmp_path):
    put(
        tmp_path,
        "x.gguf",
        "x/one.gguf",
        "y/model.safetensors",
        "y/config.json",
        "y.gguf",
        "p/same.gguf",
        "p/z.gguf",
        "q/same.gguf",
        "q/w.gguf",
    )
    assert paths(tmp_path) == {
        "same": "p/same.gguf",
        "q/same.gguf": "q/same.gguf",
        "w": "q/w.gguf",
        "x": "x.gguf",
        "x/one.gguf": "x/one.gguf",
        "y": "y",
        "y.gguf": "y.gguf",
        "z": "p/z.gguf",
    }


def test_names_come_in_order(tmp_path):
    put(tmp_path, "c.gguf", "a/x.gguf", "b.gguf")
    assert names(tmp_path) == ["a", "b", "c"]


def test_a_lookup_takes_the_exact_name_and_never_a_path(tmp_path):
    root = tmp_path / "models"
    put(root, "x.gguf")
    put(tmp_path, "secret.gguf")
    models = Catalog(root).scan()
    assert not any(name in models for name in ("../secret", "X", "x.gguf", str(tmp_path / "secret.gguf"), ""))
