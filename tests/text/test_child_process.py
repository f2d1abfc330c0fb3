"""The processes that compute strangers' templates and grammars: bounded, replaced, and gone with the one who asks."""

import contextlib
import gc
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from src.errors import ChatTemplateTooCostly
from src.text.child_process import ENVIRONMENT, ChildFailed, ChildNotStarted, ChildProcess, ChildTimedOut, ChildTookTooMuch, Memory
from src.text.grammar.matcher import Refused
from src.text.grammar.process import CompilerProcess
from src.text.grammar.vocabulary import Vocabulary
from src.text.template.process import RendererProcess
from src.text.tokenizer.base import ByteTokenizer

pytestmark = pytest.mark.macos

LARGE = "x" * (1 << 20)  # more than a pipe holds


class Renderer(RendererProcess):
    too_long = ChatTemplateTooCostly, "TEMPLATE_SECONDS"
    died = ChatTemplateTooCostly, "ends"

    def __init__(self) -> None:
        super().__init__("{{ text }}", "", "", 0.2)

    def use(self, text: str = "a") -> None:
        assert self.render({"text": text}) == text


class Compiler(CompilerProcess):
    too_long = Refused, "GRAMMAR_COMPILE_SECONDS"
    died = Refused, "too complex"

    def __init__(self) -> None:
        super().__init__(Vocabulary.of(ByteTokenizer()), 2.0)

    def use(self, text: str = "a") -> None:
        self.check(f'start: "a" // {text}', 2.0)


User = Renderer | Compiler


@pytest.fixture(params=[Renderer, Compiler])
def user(request, monkeypatch) -> Iterator[User]:
    monkeypatch.setenv("API_KEY", "a-secret")
    user = request.param()
    user.use()
    yield user
    user.close()


def wait_until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("make", [Renderer, Compiler])
def test_the_process_has_no_files_no_secrets_no_children_no_log_and_leaves_no_core(make, monkeypatch, told):
    monkeypatch.setenv("API_KEY", "a-secret")
    with used(make) as user:
        said = told()
        assert [said[name] for name in ("NOFILE", "FSIZE", "NPROC", "CORE")] == [[0, 0]] * 4
        assert said["stderr"] == os.stat(os.devnull).st_rdev
        by_itself = {"LC_CTYPE", "__CF_USER_TEXT_ENCODING", "__PYVENV_LAUNCHER__"}  # set by Python, or by macOS
        assert set(psutil.Process(user.pid).environ()) <= {*ENVIRONMENT, *by_itself}
        assert "API_KEY" not in ENVIRONMENT


@pytest.mark.parametrize("make", [Renderer, Compiler])
def test_its_memory_is_bounded(make, told):
    with used(make) as user:
        virtual = psutil.Process(user.pid).memory_info().vms
        assert virtual < told()["AS"][0] < virtual + (1 << 30) + (1 << 28)


def at_the_start_of_each_process(monkeypatch, tmp_path, code: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import resource\n{code}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@contextlib.contextmanager
def used(make: Callable[[], User]) -> Iterator[User]:
    user = make()
    user.use()
    yield user
    user.close()


# The process's own words, each time it has set a limit: no other process can ask for them on a Mac. A pipe takes them whatever
# files it may write.
TELL = """
import json, os
pipe, hold = os.open({pipe!r}, os.O_WRONLY), resource.setrlimit
def setrlimit(which, limits):
    hold(which, limits)
    said = {{name: resource.getrlimit(getattr(resource, 'RLIMIT_' + name)) for name in ('NOFILE', 'FSIZE', 'NPROC', 'CORE', 'AS')}}
    os.write(pipe, json.dumps({{**said, 'stderr': os.fstat(2).st_rdev}}).encode() + b'\\n')
resource.setrlimit = setrlimit
"""


@pytest.fixture
def told(monkeypatch, tmp_path) -> Iterator[Callable[[], dict]]:
    """What the process had said last, when it was asked something first."""
    os.mkfifo(tmp_path / "pipe")
    at_the_start_of_each_process(monkeypatch, tmp_path, TELL.format(pipe=str(tmp_path / "pipe")))
    pipe = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    yield lambda: json.loads(os.read(pipe, 1 << 16).splitlines()[-1])
    os.close(pipe)


@pytest.mark.parametrize("make", [Renderer, Compiler])
def test_a_bound_that_the_operator_has_set_for_all_processes_stays(make, monkeypatch, tmp_path, told):
    most = 1 << 40
    told_first = (tmp_path / "sitecustomize.py").read_text()
    at_the_start_of_each_process(monkeypatch, tmp_path, f"resource.setrlimit(resource.RLIMIT_AS, ({most}, {most}))\n{told_first}")
    with used(make):
        soft, hard = told()["AS"]
        assert soft < hard == most


SYSTEMS = {
    "one that does not hold the bound": "",
    "one that refuses it": "    if which == resource.RLIMIT_AS: raise ValueError('current limit exceeds maximum limit')",
}


@pytest.fixture(params=SYSTEMS.values(), ids=SYSTEMS)
def unbounded(request, monkeypatch, tmp_path) -> None:
    """A system whose kernel lets a process take all memory there is, as macOS may."""
    other = "    if which != resource.RLIMIT_AS: hold(which, limits)"
    code = f"hold = resource.setrlimit\ndef setrlimit(which, limits):\n{request.param}\n{other}\nresource.setrlimit = setrlimit"
    at_the_start_of_each_process(monkeypatch, tmp_path, code)


def test_where_the_system_does_not_bound_a_template_its_memory_is_looked_at(unbounded):
    renderer = RendererProcess("{% if text == 'evil' %}{{ text * 10**9 }}{% else %}{{ text }}{% endif %}", "", "", 20)
    before = renderer.pid
    with pytest.raises(ChatTemplateTooCostly, match="takes too much memory"):
        renderer.render({"text": "evil"})
    assert is_gone(before)
    assert renderer.render({"text": "good"}) == "good"
    renderer.close()


def test_where_the_system_does_not_bound_it_one_still_works(unbounded):
    renderer, compiler = Renderer(), Compiler()
    for user in (renderer, compiler):
        user.use(LARGE)
        before = user.pid
        user.use()
        assert user.pid == before
        user.close()


@pytest.mark.parametrize("text", ["a", LARGE], ids=["small", "larger than the pipe"])
def test_one_that_hangs_is_replaced(user, text):
    before = user.pid
    os.kill(before, signal.SIGSTOP)
    kind, reason = user.too_long
    with pytest.raises(kind, match=reason):
        user.use(text)
    assert is_gone(before)
    user.use()
    assert user.pid != before


def test_one_that_dies_is_replaced(user):
    before = user.pid
    os.kill(before, signal.SIGKILL)
    kind, reason = user.died
    with pytest.raises(kind, match=reason):
        user.use()
    user.use()
    assert user.pid != before


def test_one_that_uses_up_its_processor_time_took_too_long(user):
    os.kill(user.pid, signal.SIGPROF)
    kind, reason = user.too_long
    with pytest.raises(kind, match=reason):
        user.use()


def test_an_interrupt_of_the_terminal_does_not_end_it(user):
    os.kill(user.pid, signal.SIGINT)
    before = user.pid
    user.use()
    assert user.pid == before


def test_threads_get_their_own_answers():
    renderer = Renderer()
    threads = [threading.Thread(target=lambda text=str(number): [renderer.use(text) for _ in range(50)]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    renderer.use()
    renderer.close()


@pytest.mark.parametrize("make", [Renderer, Compiler])
def test_one_that_nobody_holds_any_more_ends(make):
    user = make()
    user.use()
    pid = user.pid
    del user
    gc.collect()
    wait_until(lambda: is_gone(pid))


def test_closing_ends_it_and_a_question_starts_another(user):
    before = user.pid
    user.close()
    assert user.pid is None
    assert is_gone(before)
    user.use()


CHILD = """
from src.text.child_process import detach, serve
def setup(data):
    return data * 2, {answer}
if {starts}:
    detach()
    serve(setup)
"""


@pytest.fixture
def child(tmp_path, monkeypatch) -> Iterator[Callable[..., ChildProcess]]:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made = []

    def make(answer: str = "lambda data: data", starts: bool = True) -> ChildProcess:
        (tmp_path / "a_child.py").write_text(CHILD.format(answer=answer, starts=starts))
        made.append(ChildProcess("a_child", b"ab", Memory(1 << 27)))
        return made[-1]

    yield make
    for process in made:
        process.close()


def test_the_setup_is_answered_once_a_process(child):
    process = child()
    assert process.start() == process.start() == b"abab"
    before = process.pid
    assert process.ask(b"x", 20) == b"x"
    assert process.pid == before


def test_an_answer_larger_than_asked_for_ends_the_process(child):
    process = child("lambda data: data * 10")
    assert process.ask(b"x", 20, 10) == b"x" * 10
    with pytest.raises(ChildFailed):
        process.ask(b"xx", 20, 10)
    assert process.pid is None


HOLDS = "lambda data: (bytes([1]) * (int(data) << 20), __import__('time').sleep(0.5), data)[2]"


def test_a_question_that_takes_more_memory_than_it_may_ends_the_process(child):
    process = child(HOLDS)
    assert process.ask(b"100", 20) == b"100"
    for mebibytes in (b"250", b"2000"):
        with pytest.raises(ChildTookTooMuch):
            process.ask(mebibytes, 20)
        assert process.pid is None
    assert process.ask(b"100", 20) == b"100"


def test_a_larger_question_may_take_more(child):
    process = child(HOLDS)
    process._memory = Memory(1 << 27, 1 << 20)
    assert process.ask(b" " * 250 + b"250", 20).strip() == b"250"


def test_an_error_in_the_child_ends_it(child):
    process = child("lambda data: 1 / len(data)")
    with pytest.raises(ChildFailed):
        process.ask(b"", 20)


def test_one_that_does_not_start_says_so(child):
    with pytest.raises(ChildNotStarted):
        child(starts=False).ask(b"x", 20)


def test_a_question_has_a_time(child):
    process = child("lambda data: __import__('time').sleep(60)")
    process.start()
    with pytest.raises(ChildTimedOut):
        process.ask(b"x", 0.05)


def test_a_question_that_is_interrupted_leaves_no_answer_to_the_next(child):
    process = child("lambda data: __import__('time').sleep(data == b'slow') or data")
    process.start()
    main = threading.main_thread().ident

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGUSR1))
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            process.ask(b"slow", 20)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert process.ask(b"next", 20) == b"next"


def test_a_program_that_is_not_there_does_not_start():
    with pytest.raises(ChildNotStarted):
        ChildProcess("no_such_module", b"", Memory(1 << 27)).start()
