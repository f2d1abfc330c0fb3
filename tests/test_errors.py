"""The tree of failures, as errors.py draws it, is the tree there is; each says all that OpenAI's error object needs."""

import inspect
import re

import pytest

from src import errors
from src.errors import EACH, FIELD, InvalidValue, ServiceError, renamed
from src.protocol import Failed, decode, encode

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


def test_a_message_names_the_field_as_its_path_does():
    error = InvalidValue(f"{FIELD} must be a string.", ("messages", 0, "content"))
    assert (error.param, error.message, str(error)) == ("messages[0].content", *["messages[0].content must be a string."] * 2)
    assert InvalidValue(f"{FIELD} is empty.").message == "The request is empty."


NAMES = {
    ("messages",): ("input",),
    ("tools", EACH, "function"): ("tools", EACH),
    ("tools", EACH, "function", "parameters"): ("tools", EACH, "input_schema"),
}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("messages",), "input"),
        (("model",), "model"),
        (("messages", "x"), "input.x"),
        (("tools",), "tools"),
        (("tools", 3, "function", "name"), "tools[3].name"),
        (("tools", 12, "function", "parameters"), "tools[12].input_schema"),
        (("tools", 0, "type"), "tools[0].type"),
        ((), None),
    ],
)
def test_an_api_renames_a_path_by_its_longest_known_beginning(path, name):
    assert InvalidValue("x", renamed(path, NAMES)).param == name


def test_another_apis_name_changes_no_word_of_the_message_but_the_field():
    error = InvalidValue("The model's chat template refuses these messages: no.", "messages")
    error.path = renamed(error.path, NAMES)
    assert (error.param, error.message) == ("input", "The model's chat template refuses these messages: no.")


def test_an_error_crosses_a_socket_with_its_path():
    error = decode(encode(Failed.of(InvalidValue(f"{FIELD} is wrong.", ("tools", 0, "function")))), Failed).error()
    assert (error.path, error.message) == (("tools", 0, "function"), "tools[0].function is wrong.")


@pytest.mark.parametrize("kind", FAILURES)
def test_type_and_code_are_strings_and_fit_the_status(kind):
    assert isinstance(kind.code, str)
    clients = kind.status < 500 or kind.status == 501  # a transfer coding that no server has to know
    expected = {429: "rate_limit_error"}.get(kind.status, "invalid_request_error" if clients else "server_error")
    assert kind.type == expected


def test_codes_tell_failures_apart():
    codes = [kind.code for kind in FAILURES if kind is not ServiceError]
    assert len(set(codes)) == len(codes)


def test_a_failure_reads_as_its_message():
    assert str(ServiceError("what happened")) == "what happened"
