"""What a client and the log are told of a mistake of our own."""

from loguru import logger

from src import logs
from src.api.app import create_app
from src.settings import Settings

CANARY = "canary-7f3a"


def test_our_own_mistake_is_a_500_and_its_traceback_in_the_log_alone(tmp_path):
    settings = Settings(log_dir=str(tmp_path))
    app = create_app(settings)
    app.add_url_rule("/mistake", view_func=lambda: {}[CANARY])
    logs.configure(settings, "gateway")
    try:
        response = app.test_client().get("/mistake", headers={"X-Request-ID": "the-one"})
    finally:
        logger.remove()
    assert (response.status_code, response.json["error"]["code"]) == (500, "internal_error")
    assert CANARY not in response.text
    assert "Traceback" not in response.text
    log = (tmp_path / "errors.log").read_text()
    assert "the-one" in log
    assert "KeyError" in log
