"""What /v1/models and /v1/system/status publish: the fields they name, whatever else the manager sends."""

import msgspec
import pytest

from src.api.render import models as public
from src.api.schema import output
from src.engines.base import EngineStats
from src.protocol import DownloadProgress, LoadProgress, ModelPlan, ModelState, ProcessUse, RunnerStats

OF_THE_ENGINE = {
    "running": 1, "waiting": 2, "slots": 3, "kv_used": 4, "kv_total": 5, "longest_wait": 0.5, "admitted": 6, "waited_seconds": 2.5,
    "prefix_hit": 7, "prefix_asked": 8, "generated": 9, "compute_seconds": 1.25,
}  # fmt: skip
OF_THE_RUNNER = {"resumed": 10, "preempted": 12, "invalid_outputs": 13}
OF_THE_RUNNER |= {"steps": 11, "step_seconds": 1.5, "step_age": 0.25, "tokens_per_second": 9.5}
STATS = RunnerStats(engine=EngineStats(**OF_THE_ENGINE), **OF_THE_RUNNER)
PROGRESS = LoadProgress(model="a", stage="reading_weights", bytes_read=1, bytes_total=2)
STATE = ModelState(name="a", state="loading", format="gguf", size_bytes=2, modified=7, progress=PROGRESS, stats=STATS)
PLAN = ModelPlan(model="a", fits=False, engines={"llama_cpp": None})
DOWNLOAD = DownloadProgress(name="a", repo="owner/a", source="pypi", stage="done")
USE = ProcessUse(name="runner", pid=1, cpu_percent=0.5, cpu_seconds=2.0, rss_bytes=3, threads=4)


def wider(message: msgspec.Struct) -> msgspec.Struct:
    """The same message from a manager whose struct has one field more."""
    kind = msgspec.defstruct(type(message).__name__, [("internal", str, "not for the public")], bases=(type(message),), kw_only=True)
    return kind(**{name: getattr(message, name) for name in message.__struct_fields__})


@pytest.mark.parametrize(
    ("render", "message"),
    [
        (public.model, STATE),
        (public.model_status, STATE),
        (public.plan, PLAN),
        (public.load_progress, PROGRESS),
        (public.download, DOWNLOAD),
        (public.process, USE),
    ],
)
def test_a_field_that_the_manager_adds_is_not_published(render, message):
    more = wider(message)
    assert more.internal == "not for the public"
    assert render(more) == render(message)
    assert render(message), "else this proves nothing"


def test_nor_is_one_of_a_struct_within():
    state = msgspec.structs.replace(
        STATE, stats=wider(msgspec.structs.replace(STATS, engine=wider(STATS.engine))), progress=wider(PROGRESS)
    )
    assert public.model_status(state) == public.model_status(STATE)
    assert public.model(state) == public.model(STATE)


def test_an_entry_of_the_list_has_openais_fields_and_ours_but_no_figures_of_the_process():
    entry = public.model(STATE)
    assert list(entry)[:4] == ["id", "object", "created", "owned_by"]
    assert (entry["id"], entry["created"]) == ("a", 7)
    assert entry["progress"] == {"stage": "reading_weights", "bytes_read": 1, "bytes_total": 2}
    assert not {"stats", "device", "engine_version", "load_seconds", "restarts"} & set(entry)


def test_the_status_adds_the_figures_of_the_process_and_of_its_runner():
    status = public.model_status(STATE)
    assert status["progress"] == {"model": "a", "stage": "reading_weights", "bytes_read": 1, "bytes_total": 2}
    assert {"device", "engine_version", "load_seconds", "restarts"} <= set(status)
    assert status["stats"] == {**OF_THE_ENGINE, **OF_THE_RUNNER}


@pytest.mark.parametrize(
    ("schema", "published"),
    [(output.MODEL, public.model(STATE)), (output.PLAN, public.plan(PLAN)), (output.DOWNLOAD, public.download(DOWNLOAD))],
)
def test_what_the_document_promises_is_published(schema, published):
    assert set(schema["required"]) <= set(published)
