"""The files of a Hugging Face folder that engines read themselves."""

import pytest

from src.engines.folder import end_tokens
from src.errors import ModelLoadFailed


def test_every_token_that_the_folders_files_call_an_end_ends_an_answer(tmp_path):
    tmp_path.joinpath("config.json").write_text('{"eos_token_id": 5, "text_config": {"eos_token_id": 4}}')
    tmp_path.joinpath("generation_config.json").write_text('{"eos_token_id": [7, 6]}')
    tmp_path.joinpath("tokenizer_config.json").write_text('{"eos_token": {"content": "<end>"}}')
    tmp_path.joinpath("tokenizer.json").write_text('{"added_tokens": [{"id": 9, "content": "<end>"}, {"id": 8, "content": "<x>"}]}')
    assert end_tokens(tmp_path) == [4, 5, 6, 7, 9]


def test_a_folder_that_names_none_has_none(tmp_path):
    assert end_tokens(tmp_path) == []


def test_a_file_that_is_no_json_is_named(tmp_path):
    tmp_path.joinpath("generation_config.json").write_text("{")
    with pytest.raises(ModelLoadFailed, match=r"generation_config.json is no JSON"):
        end_tokens(tmp_path)
