"""What README and docs say of settings and routes is true."""

import re

from src.api.app import create_app
from src.api.openapi import OPERATIONS
from src.api.schema import ChatRequest, CompletionRequest
from src.api.schema.unknown import WITHOUT_EFFECT
from src.api.schema.unsupported import UNSUPPORTED
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


CHINESE = ROOT / "docs" / "README.zh-CN.md"


def code_of(document: str) -> list[str]:
    """What stands between fences, without comments: these are translated. Drawings are too."""
    blocks = re.findall(r"^```(?:sh|python|toml)\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    return [re.sub(r"\s*# .*$", "", block, flags=re.MULTILINE) for block in blocks]


def test_the_chinese_readme_has_the_sections_commands_and_settings_of_the_english_one():
    english, chinese = (ROOT / "README.md").read_text(), CHINESE.read_text()
    assert code_of(chinese) == code_of(english)
    for shape in (r"^(#+) ", r"^<!-- (.*) -->$", r"^\| `(\w+)` \| (`.*?`)? ?\|"):
        assert re.findall(shape, chinese, re.MULTILINE) == re.findall(shape, english, re.MULTILINE)


def test_the_architecture_page_names_all_that_lies_in_src():
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    layout = page.split("```\nsrc/\n")[1].split("```")[0]
    for path in (ROOT / "src").iterdir():
        if not path.name.startswith("__"):
            assert re.search(rf"\b{path.stem}\b", layout), f"{path.relative_to(ROOT)} is not in the layout"


def test_every_link_between_the_documents_leads_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
            found = (page.parent / target).resolve() if target else page
            assert found.exists(), f"{page.name}: {target}"
            if heading:
                headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
                assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}, (
                    f"{page.name}: #{heading}"
                )


def test_every_route_is_in_the_api_document():
    document = (ROOT / "docs" / "API.md").read_text()
    for rule in create_app(Settings()).url_map.iter_rules():
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            path = re.sub(r"<(path:)?\w+>", "{id}", rule.rule)
            assert re.search(rf"^\|[^|]*`{method} {re.escape(path)}`", document, re.MULTILINE), f"{method} {path}"


def test_every_field_of_a_body_is_in_the_api_document():
    """Those of its top level, by their names in code."""
    document = (ROOT / "docs" / "API.md").read_text()
    for kind in {kind for operation in OPERATIONS.values() for kind in operation.body}:
        for name in kind.model_fields:
            assert re.search(rf"[`.\"]{name}[`.\"]", document), f"{kind.__name__}.{name}"


def test_the_api_document_lists_what_is_refused_and_what_has_no_effect():
    document = (ROOT / "docs" / "API.md").read_text()
    refused = set(UNSUPPORTED) - ChatRequest.model_fields.keys() - CompletionRequest.model_fields.keys()
    for beginning, names in (("Refused with 400", refused), ("Accepted and without effect", WITHOUT_EFFECT)):
        [listed] = re.findall(rf"^{beginning}.*?(?:change the\s+answer|has it): (.*?)\.\s", document, re.MULTILINE | re.DOTALL)
        assert set(re.findall(r"`(\w+)`", listed)) == set(names)


def all_subclasses(kind: type) -> set[type]:
    return {kind} | {below for child in kind.__subclasses__() for below in all_subclasses(child)}


def test_every_error_code_is_in_the_api_document():
    document = (ROOT / "docs" / "API.md").read_text()
    for kind in all_subclasses(ServiceError):
        assert f"`{kind.code}`" in document


def test_tests_that_the_documents_name_are_there():
    files = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    for page in ("RELIABILITY.md", "FAULTS.md"):
        named = set(re.findall(r"`(?:tests/[\w/]*/)?(test_\w+)(?:\.py)?`", (ROOT / "docs" / page).read_text()))
        assert len(named) > 10
        assert named <= files, f"{page}: {named - files}"
