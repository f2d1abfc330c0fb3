"""The architecture, held: who may import whom, and what importing the gateway must not load."""

import ast
import subprocess
import sys

import pytest

from src.settings import ROOT

# module (or package) under src: what of src it may import. The longest matching name decides.
ALLOWED = {
    "settings": {"settings", "errors", "private"},
    "errors": set(),
    "private": {"errors"},
    "keys": {"errors", "private"},
    "sampling": set(),
    "spec": {"engines.base"},
    "protocol": {"protocol", "errors", "sampling"},
    "client": {"protocol", "errors"},
    "listening": {"protocol"},
    "catalog": {"catalog", "errors"},
    "download": {"download"},
    "download.__main__": {"download", "settings"},
    "logs": {"settings", "errors", "terminal"},
    "terminal": set(),
    "gunicorn_log": {"terminal"},
    "notify": set(),
    "rundir": {"errors"},
    "master": {"catalog", "settings", "errors", "keys", "notify", "private", "rundir"},
    "api": {"api", "client", "protocol", "sampling", "errors", "settings", "logs", "catalog", "keys"},
    "api.worker": {"api", "errors", "logs", "master", "settings"},
    "text": {"text", "errors"},
    "engines": {"engines.base", "errors"},
    "engines.base": {"sampling", "errors"},
    "engines.queue": {"engines.base"},
    "engines.budget": set(),
    "engines.prefix": set(),
    "engines.folder": {"errors"},
    "engines.echo": {"engines.base", "engines.queue", "sampling", "errors"},
    "engines.llamacpp": {"engines.llamacpp", "engines.base", "engines.queue", "engines.budget", "engines.prefix", "sampling", "errors"},
    "engines.mlx": {
        *("engines.mlx", "engines.base", "engines.folder", "engines.queue", "engines.budget", "engines.prefix"),
        *("sampling", "errors"),
    },
    "engines.vllm": {"engines.vllm", "engines.base", "engines.folder", "engines.queue", "sampling", "errors"},
    "runner": {"runner", "engines.base", "text", "listening", "protocol", "sampling", "errors", "settings", "logs"},
    "runner.__main__": {"runner", "engines", "engines.base", "text", "protocol", "sampling", "errors", "settings", "logs", "spec"},
    "manager": {
        "manager",
        "catalog",
        "engines",
        "engines.base",
        "protocol",
        "client",
        "errors",
        "listening",
        "settings",
        "logs",
        "spec",
        "notify",
        "rundir",
    },
}
MODEL_LIBRARIES = {"llama_cpp", "mlx", "mlx_lm", "vllm", "torch", "transformers", "tokenizers", "numpy", "jinja2.sandbox"}

FILES = sorted((ROOT / "src").rglob("*.py"))


def module_name(path) -> str:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in FILES}


def imports_of(path) -> set[str]:
    """Names of modules under src that a file imports, also inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}"[4:] in MODULES else node.module for alias in node.names
            }
    return {name[4:] for name in found if name.startswith("src.")}


def longest_match(name: str, table) -> str | None:
    return max((key for key in table if name == key or name.startswith(key + ".")), key=len, default=None)


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_name(path) or "src")
def test_a_module_imports_only_what_the_architecture_allows(path):
    name = module_name(path)
    if not name:
        assert not imports_of(path)
        return
    rule = longest_match(name, ALLOWED)
    assert rule is not None, f"src/{name} has no row in the import table"
    for imported in imports_of(path):
        # "engines" allows the package itself, not each engine in it; other packages are allowed with all they hold.
        allowed = imported in ALLOWED[rule] if imported.startswith("engines") else longest_match(imported, ALLOWED[rule])
        if rule.startswith("engines."):
            allowed = longest_match(imported, ALLOWED[rule])
        assert allowed, f"src.{name} must not import src.{imported}"


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_gateway_loads_no_model_library():
    assert not loaded_by("import src.api.app") & MODEL_LIBRARIES


def test_importing_the_manager_loads_no_model_library():
    assert not loaded_by("import src.manager.server") & MODEL_LIBRARIES


def test_what_the_master_imports_leaves_ssl_and_asyncio_to_be_patched_by_gevent():
    assert not loaded_by("import src.master") & {"ssl", "asyncio", "concurrent.futures", "loguru"}


def test_a_runner_never_imports_gevent():
    assert not loaded_by("import src.runner.server, src.engines.echo, src.text.template") & {"gevent"}


# What makes code or objects of bytes, or does not go with gevent. Where one is allowed, and why.
BARRED = {"pickle", "shelve", "marshal", "dill", "yaml", "tarfile", "zipfile", "multiprocessing", "grpc"}
BARRED_CALLS = {"eval", "exec", "compile", "__import__"}
BARRED_METHODS = {"torch.load", "os.system", "os.popen", "numpy.load", "joblib.load"}
BARRED_BUT = {
    "download.pypi": {"zipfile"},  # a wheel: one named member of a checked file, in a process of its own
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_name(path) or "src")
def test_nothing_makes_code_or_objects_of_bytes(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names} & BARRED
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").partition(".")[0]} & BARRED
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found |= {node.func.id} & BARRED_CALLS
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            found |= {f"{owner}.{node.func.attr}"} & BARRED_METHODS
    assert found == BARRED_BUT.get(module_name(path), set())
