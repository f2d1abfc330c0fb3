"""What our master and worker replace or use of Gunicorn is listed, and is there: an upgrade that renames it fails here, not in service."""

import ast
import inspect

import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.reloader import reloader_engines
from gunicorn.workers.base import Worker
from gunicorn.workers.ggevent import GeventWorker

from src.gunicorn import master, worker
from src.gunicorn.master import Master
from src.gunicorn.worker import GatewayWorker


def attributes_of(module: object, *owners: str) -> tuple[set[str], set[str]]:
    """(set, read): names of attributes that a module sets, and reads, of objects by these names."""
    found = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Attribute)]
    mine = [node for node in found if ast.unparse(node.value) in owners]
    written = {node.attr for node in mine if isinstance(node.ctx, ast.Store)}
    return written, {node.attr for node in mine} - written


def names_of(*classes: type) -> set[str]:
    """Attributes of a class, and those that its methods give an instance."""
    functions = [value for kind in classes for value in vars(kind).values() if inspect.isfunction(value)]
    return {name for kind in classes for name in dir(kind)} | {name for function in functions for name in function.__code__.co_names}


def test_the_lists_are_complete():
    written, read = attributes_of(master, "server")
    assert written == set()
    assert read == set(Master.USES)
    written, read = attributes_of(worker, "worker", "self._worker")
    assert written - {"gateway"} == set(GatewayWorker.REPLACES)
    assert read == set(GatewayWorker.USES)


@pytest.mark.parametrize("name", [*Master.WRAPS, *Master.USES])
def test_gunicorns_master_has_what_is_wrapped_or_used(name):
    assert name in names_of(Arbiter)
    if name in Master.WRAPS:
        assert inspect.isfunction(getattr(Arbiter, name))
        assert inspect.isfunction(getattr(Master, f"_{name}"))


@pytest.mark.parametrize("name", [*GatewayWorker.REPLACES, *GatewayWorker.USES])
def test_gunicorns_worker_has_what_is_replaced_or_used(name):
    assert name in names_of(*GeventWorker.__mro__[:-1])


def test_the_wrapped_methods_take_what_ours_pass_on():
    assert list(inspect.signature(Arbiter.stop).parameters) == ["self", "graceful"]
    assert list(inspect.signature(Arbiter.manage_workers).parameters) == ["self"]
    assert list(inspect.signature(GeventWorker.handle).parameters) == ["self", "listener", "client", "addr"]
    assert list(inspect.signature(GeventWorker.handle_error).parameters) == ["self", "req", "client", "addr", "exc"]
    assert list(inspect.signature(GeventWorker.timeout_ctx).parameters) == ["self"]


def test_gunicorns_reloader_calls_what_ours_puts_in_its_place():
    assert "_callback" in names_of(*reloader_engines["poll"].__mro__[:-1])
    assert "reloader" in Worker.init_process.__code__.co_names
