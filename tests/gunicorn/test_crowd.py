"""Who goes when a worker has too many connections: of one network, or of all. With greenlets in place of connections."""

import gevent
import pytest
from gevent.event import Event

from src.gunicorn import crowd as module
from src.gunicorn.crowd import Crowd, Waiter
from src.gunicorn.worker import _bounded
from src.settings import Settings


@pytest.fixture
def crowd(monkeypatch):
    """4 connections, 2 of one network; addresses that begin with 127 have no bound of their own."""
    crowd = Crowd()
    crowd.limit(4, 2, lambda address: "" if address.startswith("127") else address)
    monkeypatch.setattr(module, "crowd", crowd)
    return crowd


class Connections:
    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self.ended: list[str] = []
        self.refused: list[str] = []
        self._greenlets: dict[str, gevent.Greenlet] = {}

    def come(self, name: str, address: str, state: str = "silent") -> None:
        """`state`: silent; heard: its request has begun to come; busy: a request is being answered."""
        self._greenlets[name] = gevent.spawn(self._live, name, address, state)
        gevent.sleep(0.001)

    def leave(self, name: str) -> None:
        self._greenlets[name].kill()
        gevent.sleep(0.001)

    def _live(self, name: str, address: str, state: str) -> None:
        network = self._crowd.enter((address, 1234))
        assert self._crowd.enter((address, 1234)) == network, "the second time counts nothing"
        if network is None:
            self.refused.append(name)
            return
        if state == "busy":
            Event().wait()
        try:
            with Waiter(network, ConnectionAbortedError) as waiter:
                waiter.heard = state == "heard"
                Event().wait()
        except ConnectionAbortedError:
            self.ended.append(name)


@pytest.fixture
def connections(crowd):
    connections = Connections(crowd)
    yield connections
    gevent.killall(list(connections._greenlets.values()))


def test_of_too_many_the_one_that_was_silent_for_longest_ends(connections):
    for number in range(6):
        connections.come(f"c{number}", "127.0.0.1")
    assert (connections.ended, connections.refused) == (["c0", "c1"], [])


def test_one_whose_request_has_begun_ends_after_the_silent_ones_and_one_that_is_answered_never(connections):
    connections.come("busy", "127.0.0.1", "busy")
    connections.come("heard", "127.0.0.1", "heard")
    for number in range(4):
        connections.come(f"c{number}", "127.0.0.1", "busy" if number > 1 else "silent")
    assert connections.ended == ["c0", "c1"]
    connections.come("last", "127.0.0.1", "busy")
    connections.come("more", "127.0.0.1", "busy")
    assert connections.ended == ["c0", "c1", "heard"]
    assert connections.refused == [], "it waits in the listener's queue where there is no place at all"


def test_one_whose_request_comes_at_the_last_moment_is_answered_and_may_end_another_time(crowd):
    ended = []

    def live() -> None:
        waiter = Waiter("", ConnectionAbortedError)
        with waiter:
            waiter.end()  # and before its turn comes, so does the request
        gevent.sleep(0.001)
        try:
            with waiter:
                Event().wait()
        except ConnectionAbortedError:
            ended.append(waiter)

    greenlet = gevent.spawn(live)
    gevent.sleep(0.005)
    assert ended == []
    assert crowd._end_silent()
    greenlet.join(1)
    assert len(ended) == 1


def test_a_network_loses_its_own_and_no_others(connections):
    connections.come("alice", "192.0.2.1")
    for number in range(4):
        connections.come(f"c{number}", "198.51.100.1")
    assert (connections.ended, connections.refused) == (["c0", "c1"], [])


def test_a_network_without_a_silent_one_is_refused_until_one_ends(connections):
    for number in range(3):
        connections.come(f"c{number}", "198.51.100.1", "busy")
    assert connections.refused == ["c2"]
    connections.come("alice", "192.0.2.1")
    connections.leave("c0")
    connections.come("c3", "198.51.100.1")
    assert (connections.ended, connections.refused) == ([], ["c2"])


def test_those_that_have_left_count_no_more(connections, crowd):
    for number in range(20):
        connections.come(f"c{number}", "198.51.100.1", "busy")
        connections.leave(f"c{number}")
    assert connections.refused == []
    assert not crowd.waiting


def test_this_machine_and_trusted_proxies_have_no_bound_and_a_network_of_ipv6_has_one():
    network = _bounded(Settings(trusted_proxies="10.1.0.0/16"))
    assert [network(address) for address in ("127.0.0.1", "::1", "10.1.2.3", "::ffff:127.0.0.1")] == [""] * 4
    assert network("10.2.2.3") == "10.2.2.3"
    assert network("2001:db8::1") == network("2001:db8::2") != network("2001:db8:0:1::1")
