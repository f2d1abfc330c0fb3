"""The architecture, held: who may import whom, and what importing the gateway must not load."""

import ast
import subprocess
import sys
from collections import Counter

import pytest

from src.engines import ENGINES
from src.settings import ROOT

# module (or package) under src: what of src it may import. The longest matching name decides.
API_BELOW = {
    "client",
    "peer",
    "protocol",
    "sampling",
    "errors",
    "public_text",
    "settings",
    "logs",
    "catalog",
    "keys",
    "host_names",
}  # what any room of api may use
ALLOWED = {
    "settings": {"settings", "errors", "secret_files"},
    "errors": {"public_text"},
    "public_text": set(),
    "secret_files": {"errors"},
    "keys": {"errors", "secret_files"},
    "sampling": set(),
    "protocol": {"protocol", "errors", "sampling"},
    "protocol.management": {"protocol", "engines.base", "errors"},
    "protocol.generation": {"protocol", "engines.base", "errors", "sampling"},
    "peer": set(),
    "host_names": set(),
    "protocol.listen": {"protocol", "peer"},
    "client": {"client", "protocol", "errors", "peer"},
    "catalog": {"catalog", "errors", "hf_folder", "sampling"},
    "download": {"download"},
    "download.errors": set(),
    "download.reason": {"logs"},
    "download.reference": {"download.errors"},
    "download.__main__": {"download", "settings"},
    "logs": {"settings", "errors", "terminal"},
    "terminal": set(),
    "systemd": set(),
    "rundir": {"errors"},
    "operator_token": {"errors", "secret_files", "rundir"},
    "gunicorn": set(),
    "process_limits": set(),
    "gunicorn.gunicorn_log": {"terminal"},
    "gunicorn.abandoned": {"client.hangup"},
    "gunicorn.connection": {"errors", "gunicorn.crowd"},
    "gunicorn.crowd": set(),
    "gunicorn.health": set(),
    "gunicorn.watchdog": set(),
    "gunicorn.tls": {"gunicorn.crowd"},
    "gunicorn.checks": {"settings", "errors", "secret_files"},
    "gunicorn.handover": set(),
    "gunicorn.master": {
        *(
            "gunicorn",
            "gunicorn.checks",
            "gunicorn.handover",
            "gunicorn.health",
            "gunicorn.watchdog",
            "process_limits",
            "catalog",
            "settings",
            "errors",
            "keys",
            "systemd",
            "rundir",
        ),
        "operator_token",
    },
    "gunicorn.worker": {"gunicorn", "api.access.address", "api.failures", "api.observe", "api.shutdown", "errors", "logs", "settings"},
    "api": set(),
    "api.gateway": API_BELOW,
    "api.shutdown": API_BELOW,
    "api.schema": API_BELOW | {"api.schema", "download.reference"},
    "api.render": API_BELOW | {"api.render"},
    "api.observe": API_BELOW | {"api.observe", "api.gateway"},
    "api.failures": API_BELOW | {"api.observe", "api.render"},
    "api.body": API_BELOW | {"api.access", "api.gateway", "api.schema"},
    "api.access": API_BELOW | {"api.access", "api.gateway", "api.observe"},
    "api.access.operator": {"api.access", "api.gateway", "errors", "operator_token"},
    "api.generation": API_BELOW
    | {"api.generation", "api.gateway", "api.access", "api.observe", "api.failures", "api.render", "api.schema"},
    "api.routes": API_BELOW
    | {"api.body", "api.gateway", "api.access", "api.observe", "api.failures", "api.generation", "api.render", "api.schema"},
    "api.app": API_BELOW | {"api"},
    "text": {"text", "hf_folder", "errors"},
    "hf_folder": {"errors"},
    "engines": {"engines.base", "engines.echo", "engines.llamacpp", "engines.mlx", "engines.vllm", "errors"},
    "engines.base": {"sampling", "errors"},
    "engines.finite": {"sampling", "errors"},
    "engines.job_queue": {"engines.base"},
    "engines.measurements": set(),
    "engines.prefill_budget": set(),
    "engines.prefix": set(),
    "engines.room": set(),
    "engines.step_share": set(),
    "engines.working_set": {"engines.llamacpp"},
    "engines.echo": {"engines.base", "engines.finite", "engines.job_queue", "sampling", "errors"},
    "engines.llamacpp": {
        *(
            "engines.llamacpp",
            "engines.base",
            "engines.finite",
            "engines.job_queue",
            "engines.measurements",
            "engines.prefill_budget",
            "engines.prefix",
            "engines.room",
            "engines.step_share",
        ),
        *("sampling", "errors"),
    },
    "engines.mlx": {
        *("engines.mlx", "engines.base", "engines.finite", "engines.job_queue", "engines.prefill_budget", "engines.prefix", "engines.room"),
        *("hf_folder", "sampling", "errors"),
    },
    "engines.vllm": {"engines.vllm", "engines.base", "engines.finite", "engines.job_queue", "hf_folder", "sampling", "errors"},
    "runner": {"runner", "engines.base", "engines.finite", "text", "protocol", "sampling", "errors", "settings", "logs"},
    "runner.__main__": {"runner", "engines", "engines.base", "hf_folder", "text", "protocol", "sampling", "errors", "settings", "logs"},
    "manager": {
        *("manager", "catalog", "engines", "engines.base", "engines.measurements", "protocol", "client"),
        *("download.errors", "download.reference", "errors", "settings", "logs", "systemd", "rundir", "peer", "host_names"),
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


def names_compared_in(node: ast.AST) -> set[object]:
    """Literals that the node tests something against: in a comparison, a match, or as what is looked for in a literal collection."""
    if isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
        return {part.value for operand in operands for part in ast.walk(operand) if isinstance(part, ast.Constant)}
    if isinstance(node, ast.MatchValue) and isinstance(node.value, ast.Constant):
        return {node.value.value}
    return set()


OUTSIDE_ENGINES = [path for path in FILES if not module_name(path).startswith("engines")]


@pytest.mark.parametrize("path", OUTSIDE_ENGINES, ids=lambda path: module_name(path) or "src")
def test_no_engine_is_asked_by_its_name_but_by_what_the_registry_says_of_it(path):
    compared = set().union(*(names_compared_in(node) for node in ast.walk(ast.parse(path.read_text()))))
    assert not compared & {*ENGINES}, "ask src.engines.ENGINES for a feature instead"


@pytest.mark.parametrize(
    "test", ['engine == "vllm"', '"mlx" != a.engine', 'engine in ("vllm", "llama_cpp")', 'x if not e in {"echo"} else y']
)
def test_such_a_question_would_be_found(test):
    assert set().union(*(names_compared_in(node) for node in ast.walk(ast.parse(test)))) & {*ENGINES}


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_gateway_loads_no_model_library():
    assert not loaded_by("import src.api.app") & MODEL_LIBRARIES


def test_importing_the_manager_loads_no_model_library():
    assert not loaded_by("import src.manager.server") & MODEL_LIBRARIES


def test_what_the_master_imports_leaves_ssl_and_asyncio_to_be_patched_by_gevent():
    assert not loaded_by("import src.gunicorn.master") & {"ssl", "asyncio", "concurrent.futures", "loguru"}


def test_writing_logs_loads_no_client_of_redis():
    assert not loaded_by("import src.logs") & {"redis", "opentelemetry"}


def test_what_starts_gunicorn_leaves_the_settings_to_it():
    assert not loaded_by("import run") & {"pydantic", "msgspec"}


def test_a_runner_never_imports_gevent():
    assert not loaded_by("import src.runner.server, src.engines.echo, src.text.template") & {"gevent"}


# What makes code or objects of bytes, or does not go with gevent. Where one is allowed, and why.
BARRED = {"pickle", "shelve", "marshal", "dill", "yaml", "tarfile", "zipfile", "multiprocessing", "grpc"}
BARRED_CALLS = {"eval", "exec", "compile", "__import__"}
BARRED_METHODS = {"torch.load", "os.system", "os.popen", "numpy.load", "joblib.load"}
BARRED_BUT = {
    "download.wheel": {"zipfile"},  # checked members of a checked file, in a process of its own
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


LOADERS = {"from_pretrained": 1, "load_model": 1, "EngineArgs": 1}  # of transformers, mlx-lm and vLLM: calls there are


def test_no_library_may_run_code_of_a_models_folder():
    """Said outright at each call, whatever the library's default is or becomes."""
    found = Counter()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
            if name in LOADERS:
                found[name] += 1
                assert _trust_remote_code(node) is False, f"{path}:{node.lineno}"
    assert found == LOADERS


def _trust_remote_code(call: ast.Call) -> object:
    """The argument, also as the last entry of ** with a dict: the last one counts."""
    for keyword in call.keywords:
        key, value = keyword.arg, keyword.value
        if key is None and isinstance(value, ast.Dict):
            key, value = getattr(value.keys[-1], "value", None), value.values[-1]
        if key == "trust_remote_code":
            return getattr(value, "value", None)
    return None
