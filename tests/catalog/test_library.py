"""Names that requests use: models, aliases, adapters."""

import pytest

from src.catalog import Library
from tests.model_files import put


def test_an_adapter_is_another_name_of_its_model_and_known_as_one_at_once(tmp_path):
    put(tmp_path, "chat.gguf", "adapters/sql.gguf")
    library = Library(tmp_path, pytest.fail)
    assert library.find("chat").name == "chat"
    (tmp_path / "models.toml").write_text('[chat]\naliases = ["small"]\n[chat.adapters]\nsql = "adapters/sql.gguf"\n')
    assert library.find("sql").name == library.find("small").name == "chat"
    assert {name: library.is_adapter(name) for name in ("sql", "small", "chat", "none")} == {
        "sql": True,
        "small": False,
        "chat": False,
        "none": False,
    }
