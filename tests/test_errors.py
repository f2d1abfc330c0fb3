"""The tree of failures, as errors.py draws it, is the tree there is; each says all that OpenAI's error object needs."""

import inspect
import re

import pytest

from src import errors
from src.errors import ServiceError

DRAWN = {
    name: int(status) if status else None
    for name, status in re.findall(r"^(?:[├└]── )?([A-Z]\w+)(?: +(\d{3}))?(?: |$)", errors.__doc__.partition("\n\n")[2], re.MULTILINE)
}
CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, Exception) and kind.__module__ == "src.errors" and not name.startswith("_")
}
FAILURES = [kind for kind in CLASSES.values() if issubclass(kind, ServiceError)]


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes():
    assert set(DRAWN) == set(CLASSES)


def test_each_status_is_the_one_drawn():
    assert {name: status for name, status in DRAWN.items() if status} == {
        kind.__name__: kind.status for kind in FAILURES if kind is not ServiceError
    }


def test_what_is_drawn_below_service_error_is_one():
    below = re.findall(r"^[├└]── (\w+)", errors.__doc__, re.MULTILINE)
    assert {CLASSES[name] for name in below} == set(FAILURES) - {ServiceError}


def test_no_failure_is_an_os_error():
    assert not [kind for kind in CLASSES.values() if issubclass(kind, OSError)], "Gunicorn swallows those"


@pytest.mark.parametrize("kind", FAILURES)
def test_the_body_has_all_four_keys_and_no_other(kind):
    error = kind("what happened", "field")
    assert error.body() == {"error": {"message": "what happened", "type": kind.type, "param": "field", "code": kind.code}}
    assert kind("what happened").body()["error"]["param"] is None


@pytest.mark.parametrize("kind", FAILURES)
def test_type_and_code_are_strings_and_fit_the_status(kind):
    assert isinstance(kind.code, str)
    expected = {429: "rate_limit_error"}.get(kind.status, "invalid_request_error" if kind.status < 500 else "server_error")
    assert kind.type == expected


def test_codes_tell_failures_apart():
    codes = [kind.code for kind in FAILURES if kind is not ServiceError]
    assert len(set(codes)) == len(codes)


def test_a_failure_reads_as_its_message():
    assert str(ServiceError("what happened")) == "what happened"
