"""Names in a listing: what each stands for, and which models a list of names lets a caller see."""

import pytest

from src.catalog import Library, Listing
from tests.support.model_files import put


@pytest.fixture
def listing(tmp_path) -> Listing:
    put(tmp_path, "a.gguf", "b.gguf")
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "sql").write_bytes(b"")
    (tmp_path / "models.toml").write_text('[b]\naliases = ["small"]\n[b.adapters]\nsql = "adapters/sql"\n')
    return Library(tmp_path, pytest.fail).look()


@pytest.mark.parametrize(
    ("among", "visible"),
    [
        ((), {"a", "b", "small", "sql"}),
        (("a",), {"a"}),
        (("b",), {"b", "small"}),
        (("small",), {"b", "small"}),
        (("sql",), {"sql"}),
        (("nothing",), set()),
    ],
)
def test_a_list_of_names_shows_the_models_and_adapters_it_names_by_all_their_names(listing, among, visible):
    assert {name for name in ("a", "b", "small", "sql") if listing.is_visible(name, among)} == visible


def test_what_is_not_visible_is_refused_as_if_it_did_not_exist(listing):
    assert listing.invisible("b", ("a", "sql")).message == "The model 'b' does not exist. Models here: a, sql."
    assert listing.invisible(None, ("nothing",)).message == "The request names no model. Models here: none."
