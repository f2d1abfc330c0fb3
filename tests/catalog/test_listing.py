"""Names in a listing: what each stands for, and which models a list of names lets a caller see."""

import time

import pytest

from src.catalog import Library, Listing
from src.catalog.aliases import matches
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


@pytest.fixture
def patterned(tmp_path) -> Listing:
    put(tmp_path, "a.gguf", "b.gguf", "claude-x.gguf")
    (tmp_path / "models.toml").write_text('[a]\naliases = ["claude-*", "gpt-4"]\n[b]\naliases = ["claude-haiku-*", "*-mini", "gpt-*"]\n')
    return Library(tmp_path, pytest.fail).look()


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("claude-sonnet-4-5", "a"),
        ("claude-haiku-4-5", "b"),
        ("claude-x", "claude-x"),
        ("gpt-4", "a"),
        ("gpt-4o", "b"),
        ("claude-mini", "a"),
        ("x-mini", "b"),
        ("claude-*", "a"),
        ("Claude-3", "Claude-3"),
        ("other", "other"),
    ],
)
def test_a_wildcard_stands_for_what_no_other_name_does_and_the_one_that_says_most_wins(patterned, name, model):
    assert patterned.name_of(name) == model
    assert patterned.has(name) == (name != model or name in patterned.entries)


@pytest.mark.parametrize(("among", "visible"), [(("a",), True), (("claude-*",), True), (("claude-3",), True), (("b",), False)])
def test_a_name_by_a_wildcard_is_visible_where_its_model_is(patterned, among, visible):
    assert patterned.is_visible("claude-sonnet", among) is visible


@pytest.mark.parametrize(
    ("alias", "name", "does"),
    [
        ("*", "", True),
        ("*", "x", True),
        ("a*", "a", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*c", "a1b2c", True),
        ("a*b*c", "acb", False),
        ("a**b", "ab", True),
        ("[ab]*", "a", False),
        ("a?", "ab", False),
    ],
)
def test_a_wildcard_stands_for_any_characters_and_nothing_else_is_one(alias, name, does):
    assert matches(alias, name) is does


def test_a_long_name_takes_no_time_however_many_wildcards_there_are():
    began = time.thread_time()
    assert not matches("*a" * 90 + "*b", "a" * 1_000_000)
    assert time.thread_time() - began < 1
