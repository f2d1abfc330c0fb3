"""The matrix: what is green, and where it is written."""

import json

import pytest
from conformance_table import cell, table

from tools.conformance_matrix import BEGIN, DOCUMENT, END, RESULTS, read, written

pytestmark = pytest.mark.slow


def test_a_cell_is_green_only_where_every_case_ran_and_passed():
    assert cell({"a": "passed", "b": "passed"}, {"a", "b"}) == "✓"
    assert cell({"a": "passed", "b": "failed"}, {"a", "b"}) == "1 of 2"
    assert cell({"a": "passed", "b": "skipped"}, {"a", "b"}) == "1 of 2, 1 not run"
    assert cell({"a": "passed"}, {"a", "b"}) == "1 of 2, 1 not run", "b ran elsewhere, but not here"
    assert cell({"a": "failed"}, {"a"}) == "0 of 1"


def test_a_cell_of_what_did_not_run_is_empty():
    assert cell({}, {"a"}) == "–"
    assert cell({"a": "skipped"}, {"a"}) == "–"


def test_rows_are_features_and_columns_are_servers():
    matrix = table({"ours": {"stop": {"a": "passed"}, "n": {"b": "passed"}}, "theirs": {"stop": {"a": "failed"}}})
    assert matrix.splitlines() == [
        "| feature | cases | ours | theirs |",
        "|---|---|---|---|",
        "| n | 1 | ✓ | – |",
        "| stop | 1 | ✓ | 0 of 1 |",
        "| all | 2 | 2 | 0 |",
    ]


def test_without_a_run_there_is_no_matrix():
    assert table({}) == ""


def test_our_own_engines_come_first(tmp_path):
    for name in ("zeta", "mlx", "echo", "llama_cpp"):
        (tmp_path / f"{name}.json").write_text(json.dumps({name: {}}))
    assert list(read(tmp_path)) == ["llama_cpp", "mlx", "echo", "zeta"]


def test_it_is_written_between_its_marks_and_again_in_the_same_place():
    once = written(f"before\n{BEGIN}old{END}\nafter\n", "new")
    assert once == f"before\n{BEGIN}new{END}\nafter\n"
    assert written(once, "newer") == f"before\n{BEGIN}newer{END}\nafter\n"


def test_the_document_says_what_the_runs_found():
    assert written(DOCUMENT.read_text(), table(read(RESULTS))) == DOCUMENT.read_text(), "run tools/conformance_matrix.py"
