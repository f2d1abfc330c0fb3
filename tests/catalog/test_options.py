"""models.toml is read as it is meant, and what is wrong in it is told with file, model, key, value and what was expected."""

import os
from pathlib import Path

import pytest

from src.catalog import read_options
from src.catalog.options import MAX_BYTES
from src.errors import SettingsError


def write(folder: Path, content: str) -> Path:
    (folder / "models.toml").write_text(content)
    return folder


def test_without_the_file_there_are_no_options(tmp_path):
    assert read_options(tmp_path) == {}
    assert read_options(tmp_path / "absent") == {}


def test_all_keys_are_read(tmp_path):
    (tmp_path / "chatml.jinja").write_text("{{ messages }}")
    (tmp_path / "a.gguf").write_bytes(b"x")
    text = """
    ["Qwen2.5-0.5B"]
    aliases = ["gpt-4o-mini", "small"]
    engine = "llama_cpp"
    context_length = 8192
    max_parallel_sequences = 4
    chat_template = "chatml.jinja"
    tool_format = "hermes"
    lora = ["a.gguf"]
    pinned = true
    ttl = 60
    temperature = 0
    top_p = 0.9
    top_k = 40
    """
    [(name, of)] = read_options(write(tmp_path, text)).items()
    assert (name, of.aliases, of.engine, of.context_length) == ("Qwen2.5-0.5B", ("gpt-4o-mini", "small"), "llama_cpp", 8192)
    assert (of.pinned, of.ttl, of.tool_format, str(of.chat_template)) == (True, 60.0, "hermes", "chatml.jinja")
    assert of.sampling() == {"temperature": 0, "top_p": 0.9, "top_k": 40}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "[a]\ncontext_length = 'long'",
            "[\"a\"] context_length = 'long' is wrong: expected a valid integer (in place of CONTEXT_LENGTH, in tokens)",
        ),
        ("[a]\ncontext_length = true", '["a"] context_length = true is wrong: expected a valid integer'),
        ("[a]\ncontext_length = 0", '["a"] context_length = 0 is wrong: expected greater than or equal to 1'),
        ("[a.vllm]\ntensor_parallel_size = 0", '["a"] vllm.tensor_parallel_size = 0 is wrong: expected greater than or equal to 1'),
        ("[a.vllm]\nmax_model_len = 8", '["a"] vllm.max_model_len is wrong: expected one of dtype, quantization'),
        ("[a]\nvllm = 1", '["a"] vllm = 1 is wrong: expected a valid dictionary'),
        ("[a]\npinned = 1", '["a"] pinned = 1 is wrong: expected a valid boolean'),
        ("[a]\nengine = 'tgi'", "[\"a\"] engine = 'tgi' is wrong: expected 'mlx', 'vllm' or 'llama_cpp'"),
        ("[a]\ntemperature = 3", '["a"] temperature = 3 is wrong: expected less than or equal to 2'),
        ("[a]\naliases = 'x'", "[\"a\"] aliases = 'x' is wrong: expected a valid tuple"),
        ("[a]\naliases = ['']", '["a"] aliases'),
        ("[a]\ncontext = 1", '["a"] context is wrong: expected one of aliases, engine, context_length'),
        ("[Qwen2.5]\npinned = true", '["Qwen2"] 5 is wrong: expected one of aliases'),
        ("[Qwen2.5]\npinned = true", 'A model\'s name with a dot needs quotes: ["Qwen2.5…"]'),
        ("pinned = true", 'pinned = True is wrong: expected a table of a model\'s settings, ["pinned"]'),
        ("[a", "is not TOML"),
        ("[a]\naliases = ['b']\n[b]", "[\"a\"] aliases has 'b', which already names 'b'"),
        ("[a]\naliases = ['x']\n[b]\naliases = ['x']", "[\"b\"] aliases has 'x', which already names 'a'"),
        ("[a]\nchat_template = '../secret'", "'../secret' is wrong: expected a path inside the models folder"),
        ("[a]\naliases = ['x']\n[b.adapters]\nx = 'b'", "[\"b\"] adapters has 'x', which already names 'a'"),
        ("[a.adapters]\na = 'b'", "[\"a\"] adapters has 'a', which already names 'a'"),
        ("[a]\nadapters = ['b']", "[\"a\"] adapters = ['b'] is wrong: expected a valid dictionary"),
        ("[a.adapters]\nx = '../b'", "'../b' is wrong: expected a path inside the models folder"),
        ("[a]\nlora = ['/etc/passwd']", "'/etc/passwd' is wrong: expected a path inside the models folder"),
        ('[a]\nlora = ["a\\u0000b"]', "is wrong: there is no such file in"),
        ("[a]\nlora = ['" + "x" * 5000 + "']", "is wrong: there is no such file in"),
        ("[a.adapters]\nx = 'https://evil.example/adapter'", "is wrong: there is no such file in"),
        ("[a]\nchat_template = 'absent.jinja'", "'absent.jinja' is wrong: there is no such file in"),
    ],
)
def test_what_is_wrong_is_told_with_file_model_key_value_and_what_was_expected(tmp_path, text, told):
    with pytest.raises(SettingsError) as error:
        read_options(write(tmp_path, text))
    assert str(error.value).startswith(str(tmp_path / "models.toml"))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_text_is_told(tmp_path):
    (tmp_path / "models.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not TOML"):
        read_options(tmp_path)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    path.write_text("#" * (MAX_BYTES + 1))


@pytest.mark.parametrize("make", [pipe, endless, huge])
def test_a_file_that_never_begins_or_never_ends_is_told_and_not_waited_for(tmp_path, make):
    make(tmp_path / "models.toml")
    with pytest.raises(SettingsError, match=r"is not a regular file|is larger than 1,048,576 bytes"):
        read_options(tmp_path)


@pytest.mark.parametrize("make", [pipe, endless])
def test_a_file_that_it_names_is_a_file(tmp_path, make):
    make(tmp_path / "t.jinja")
    with pytest.raises(SettingsError, match="there is no such file"):
        read_options(write(tmp_path, '["a"]\nchat_template = "t.jinja"'))
