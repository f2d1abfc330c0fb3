"""The command a user begins with."""

from src.settings import ROOT
from tests.support.server import Server, wait_until


def test_scripts_start_ends_in_a_server_that_answers_and_that_sigterm_stops():
    with Server(program=str(ROOT / "scripts/start"), command="", INFERENCE_ENGINE="echo") as server:
        wait_until(lambda: "Ready: " in server.output, what="the banner")
        assert server.client().completions.create(model="echo", prompt="x").choices[0].text == "x"
        assert server.stop() == 0
