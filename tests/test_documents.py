"""What README and docs say of settings and routes is true."""

import re

from src.api.app import create_app
from src.errors import ServiceError
from src.settings import ROOT, Settings


def test_the_readme_lists_every_setting_with_its_default_and_meaning():
    table = (ROOT / "README.md").read_text().split("<!-- settings:")[1].split("<!-- end of settings -->")[0]
    rows = re.findall(r"^\| `(\w+)` \| (?:`(.*?)`)? ?\| (.*) \|$", table, re.MULTILINE)
    expected = []
    for name, field in Settings.model_fields.items():
        default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        expected.append((name.upper(), default, field.description))
    assert rows == expected


def test_every_route_is_in_the_api_document():
    document = (ROOT / "docs" / "API.md").read_text()
    for rule in create_app(Settings()).url_map.iter_rules():
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            path = re.sub(r"<(path:)?\w+>", "{id}", rule.rule)
            assert re.search(rf"^\|[^|]*`{method} {re.escape(path)}`", document, re.MULTILINE), f"{method} {path}"


def all_subclasses(kind: type) -> set[type]:
    return {kind} | {below for child in kind.__subclasses__() for below in all_subclasses(child)}


def test_every_error_code_is_in_the_api_document():
    document = (ROOT / "docs" / "API.md").read_text()
    for kind in all_subclasses(ServiceError):
        assert f"`{kind.code}`" in document
