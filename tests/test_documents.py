"""What README and docs say of settings and routes is true."""

import re

from src.api.app import create_app
from src.api.routes.openapi import OPERATIONS
from src.api.schema.chat import ChatRequest
from src.api.schema.completion import CompletionRequest
from src.api.schema.unsupported import UNSUPPORTED, WITHOUT_EFFECT
from src.settings import ROOT, Settings
from tests.support.failures import failures
from tools import settings_page

SETTING = re.compile(r"^\| `([A-Z_]+)` \| (?:`(.*?)`)? ?\| (.*) \|$", re.MULTILINE)


def test_the_settings_page_and_the_example_are_what_the_settings_say():
    example = settings_page.EXAMPLE.read_text()
    assert settings_page.commented(example) == example, "run python -m tools.settings_page"
    assert settings_page.page(example) == settings_page.PAGE.read_text(), "run python -m tools.settings_page"
    assert {name for name, _, _ in SETTING.findall(settings_page.PAGE.read_text())} == {name.upper() for name in Settings.model_fields}


def test_the_settings_that_the_readme_shows_are_true():
    table = (ROOT / "README.md").read_text().split("<!-- settings:")[1].split("<!-- end of settings -->")[0]
    rows = SETTING.findall(table)
    assert len(rows) == 12
    for name, default, description in rows:
        assert (default, description) == (settings_page.default_of(name), Settings.model_fields[name.lower()].description)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 160


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


def test_the_architecture_page_names_every_room_of_src_and_of_api():
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    layout = page.split("\nsrc/\n")[1].split("```")[0]
    for folder in ("src", "src/api"):
        for path in (ROOT / folder).iterdir():
            if not path.name.startswith("__"):
                name = f"{path.name}/" if path.is_dir() else path.name
                assert re.search(rf"(^|\s){re.escape(name)}(\s|$)", layout, re.MULTILINE), f"{folder}/{name} is not in the layout"


STEPS = {  # of an installation as a service, by what stands for each on any system
    "the clone": "git clone",
    "an account": r"useradd|sysadminctl -addUser",
    "folders of its own": r"mkdir .*models logs.*chown",
    "the packages": r"scripts/install requirements\.txt$",
    "a model": r"scripts/fetch_builtin_model\.py --models-dir models",
    "the service": r"cp deploy/",
    "its start": r"systemctl enable|launchctl bootstrap",
}


def steps(heading: str) -> str:
    """The first block of commands below a heading of docs/DEPLOYMENT.md."""
    return (ROOT / "docs" / "DEPLOYMENT.md").read_text().split(f"\n## {heading}\n")[1].split("```sh\n")[1].split("```")[0]


def test_linux_and_macs_are_installed_in_the_same_steps():
    for heading in ("Linux", "Mac Studio"):
        lines = steps(heading).splitlines()
        places = [next((number for number, line in enumerate(lines) if re.search(step, line)), None) for step in STEPS.values()]
        missing = [name for name, place in zip(STEPS, places, strict=True) if place is None]
        assert not missing, f"{heading}: {missing}"
        assert places == sorted(places), heading


def test_on_a_mac_root_leaves_nothing_in_the_home_of_who_called_sudo():
    """macOS' sudo keeps HOME, where the installation has a cache."""
    [install] = [line for line in steps("Mac Studio").splitlines() if "scripts/install" in line]
    assert install.startswith("sudo -H ")


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
    for mark, names in (("refused", refused), ("without effect", WITHOUT_EFFECT)):
        [listed] = re.findall(rf"<!-- fields {mark} -->(.*?)<!-- end -->", document, re.DOTALL)
        assert set(re.findall(r"`(\w+)`", listed)) == set(names)


def test_every_error_code_is_in_the_api_document():
    document = (ROOT / "docs" / "API.md").read_text()
    for kind in failures():
        assert f"`{kind.code}`" in document


def test_tests_that_the_documents_name_are_there():
    files = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    for page in ("RELIABILITY.md", "FAULTS.md"):
        named = set(re.findall(r"`(?:tests/[\w/]*/)?(test_\w+)(?:\.py)?`", (ROOT / "docs" / page).read_text()))
        assert len(named) > 10
        assert named <= files, f"{page}: {named - files}"
