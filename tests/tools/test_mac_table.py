"""The tables of docs/MAC.md are what the planner computes."""

import re

import pytest

from src.manager import memory
from src.manager.memory import GIB, Memory
from tools import mac_table
from tools.mac_table import MACS, MODELS, Mac

LLAMA = next(model for model in MODELS if model.name == "Llama 3.3 70B")


def test_the_page_holds_the_tables_as_they_are_computed():
    text = mac_table.PAGE.read_text()
    assert mac_table.page(text) == text, "run python -m tools.mac_table"
    for engine in mac_table.ENGINES:
        assert mac_table.table(engine) in text


def test_a_page_that_is_stale_is_found_and_written(tmp_path, monkeypatch, capsys):
    text = mac_table.PAGE.read_text()
    stale = tmp_path / "MAC.md"
    stale.write_text(text.replace("| room for a model |", "| room |", 1))
    monkeypatch.setattr(mac_table, "PAGE", stale)
    assert mac_table.main(["--check"]) == 1
    assert "stale" in capsys.readouterr().out
    assert mac_table.main([]) == mac_table.main(["--check"]) == 0
    assert stale.read_text() == text


@pytest.mark.parametrize(
    ("engine", "gib", "room"), [("llama_cpp", 64, 48 * GIB), ("mlx", 64, int(48 * GIB * 0.8)), ("llama_cpp", 36, 24 * GIB)]
)
def test_a_mac_has_what_metal_recommends_of_it_less_the_engines_share(engine, gib, room):
    assert Mac(gib, engine).memory == Memory("unified", gib * GIB, room, GIB // 2)


@pytest.mark.parametrize(("engine", "bits"), [("mlx", 4.5), ("llama_cpp", 4.85)])
@pytest.mark.parametrize("gib", MACS)
def test_the_longest_context_is_planned_and_one_step_more_is_not(engine, bits, gib):
    mac = Mac(gib, engine)
    longest = mac.longest(LLAMA, bits)
    if longest:
        plan = mac.plan(LLAMA, bits, longest, 1)
        assert plan
        assert plan.fit.need.total <= mac.memory.free
        assert plan.fit[:2] == (longest, 1)
    assert longest == LLAMA.trained or mac.plan(LLAMA, bits, longest + 1024, 1) is None


def test_larger_macs_never_hold_less():
    for engine, (_, quantisations) in mac_table.ENGINES.items():
        for model in MODELS:
            for bits in quantisations.values():
                lengths = [Mac(gib, engine).longest(model, bits) for gib in MACS]
                assert lengths == sorted(lengths), model.name


def test_the_server_plans_with_the_same_formula(monkeypatch):
    """The tables go by memory.unified, and so does a server that runs on a Mac."""
    monkeypatch.setattr(memory, "unified", lambda *given, **named: given)
    monkeypatch.setattr(memory.metal, "working_set", lambda: 5)
    assert memory.available("mps", 7, working_set_share=0.5)[2:] == (5, 7, memory.NOTHING, 0.5)


def test_every_mac_of_the_table_is_in_its_head():
    for engine in mac_table.ENGINES:
        assert re.findall(r"(\d+) GB", mac_table.table(engine).splitlines()[0]) == [str(gib) for gib in MACS]
