"""Rate limits per key and per address: who may send a request for text now, and the x-ratelimit headers.

A key's own limits come before the settings' ones. Without keys only addresses have limits.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, ParamSpec, TypeVar

import flask
import msgspec

from src import logs
from src.api.access.address import network_of
from src.api.access.counters import Counters, Lease, Window
from src.api.access.scopes import asker, scope_of
from src.api.observe.record import record
from src.errors import InvalidValue, RateLimitsUnavailable, TooManyRequests
from src.keys import Key
from src.settings import Settings

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
LOST_SECONDS = 5.0  # after Redis failed, before it is asked again


class Limits(NamedTuple):
    """0: none."""

    requests: int
    tokens: int
    concurrent: int


class Holder(NamedTuple):
    id: str
    name: str  # for a client, of itself
    limits: Limits


class Ticket(msgspec.Struct):
    """What a request holds while it runs, and what its client learns of its limits."""

    holders: list[Holder]
    settle: Callable[[int], None]  # counts these tokens, and gives the places back
    is_held: bool = False
    leases: list[tuple[str, Lease]] = []
    windows: dict[str, Window] = {}

    def hold(self) -> Callable[[int], None]:
        """For an answer that goes on without its client: `settle`, to be called when it has ended. The response's end settles nothing."""
        self.is_held = True
        return self.settle


class _Lost(Exception):
    """Redis is out of reach."""


class Quotas:
    def __init__(self, settings: Settings, lease: float, is_kept: Callable[[], bool] = lambda: False) -> None:
        """`is_kept`: whether the request at hand asks for an answer that was asked for before, and is kept or comes still."""
        self._of_keys = Limits(settings.rate_limit_requests, settings.rate_limit_tokens, settings.rate_limit_concurrent)
        self._of_addresses = Limits(
            settings.rate_limit_address_requests, settings.rate_limit_address_tokens, settings.rate_limit_address_concurrent
        )
        self._fail_open = settings.rate_limit_fail_open
        self._counters = Counters(settings.read_rate_limit_storage(), lease)
        self._lost_until: float | None = None
        self._is_kept = is_kept

    def admit(self) -> None:
        """Before a request for text. Raises TooManyRequests, RateLimitsUnavailable. What is kept costs nothing again."""
        if not self._is_kept():
            self.admit_new()

    def admit_new(self) -> None:
        """As admit(), whatever is kept. Of a request that was admitted it asks nothing."""
        if "ticket" in flask.g:
            return
        request = flask.request
        if request.method != "POST" or request.url_rule is None or scope_of(request.endpoint) != "inference":
            return
        holders = [holder for holder in self._holders(asker(), record().client or "") if any(holder.limits)]
        if not holders:
            return
        flask.g.ticket = ticket = Ticket(holders, settle=lambda tokens: self._settle(ticket, tokens))
        with self._counted():
            self._admit(ticket)

    def admit_sequences(self, number: int) -> None:
        """Once the body is known: a request was admitted as one sequence, and has so many. Raises TooManyRequests, InvalidValue."""
        ticket = held()
        if ticket is None or number == 1:
            return
        for holder in ticket.holders:
            if 0 < (limit := holder.limits.concurrent) < number:
                raise InvalidValue(f"The request has {number} sequences, but {holder.name} may have {limit} at a time. Ask for fewer.", "n")
        with self._counted():
            self._take_places(ticket, number - 1)

    def add_headers(self, response: flask.Response) -> flask.Response:
        """After a request: OpenAI's headers; what it used is counted when its body is through."""
        ticket = held()
        if ticket is None:
            return response
        for what, window in ticket.windows.items():
            response.headers[f"x-ratelimit-limit-{what}"] = str(window.limit)
            response.headers[f"x-ratelimit-remaining-{what}"] = str(window.left)
            response.headers[f"x-ratelimit-reset-{what}"] = _span(window.reset)
        entry = record()
        response.call_on_close(lambda: None if ticket.is_held else ticket.settle(entry.tokens_used))
        return response

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Raises RateLimitsUnavailable where Redis is lost, and requests may not pass without it."""
        try:
            yield
        except _Lost:
            if not self._fail_open:
                raise RateLimitsUnavailable("The server's rate limits cannot be counted at the moment.", retry_after=5) from None

    def _holders(self, key: Key | None, address: str) -> list[Holder]:
        """Not everybody behind a trusted proxy is one, nor are all addresses of a subscriber many."""
        holders = []
        if key is not None:
            own = (key.requests_per_minute, key.tokens_per_minute, key.concurrent)
            limits = Limits(*(default if limit is None else limit for limit, default in zip(own, self._of_keys, strict=True)))
            holders.append(Holder(f"key:{key.name}", f"The key {key.name}", limits))
        if any(self._of_addresses):
            holders.append(Holder(f"address:{network_of(address)}", "This address", self._of_addresses))
        return holders

    def _admit(self, ticket: Ticket) -> None:
        """Tokens first, which cost nothing to look at; then a place, then the request: one that is refused counts for nothing."""
        counters = self._counters
        for holder in ticket.holders:
            if limit := holder.limits.tokens:
                window = self._ask(counters.tokens, holder.id, limit)
                _merge(ticket, "tokens", window)
                if not window.left:
                    raise _refusal(holder, f"{limit} tokens a minute", window)
        self._take_places(ticket, 1)
        for holder in ticket.holders:
            if limit := holder.limits.requests:
                taken, window = self._ask(counters.take_request, holder.id, limit)
                _merge(ticket, "requests", window)
                if not taken:
                    raise _refusal(holder, f"{limit} requests a minute", window)

    def _take_places(self, ticket: Ticket, number: int) -> None:
        for holder in ticket.holders:
            if limit := holder.limits.concurrent:
                lease = self._ask(self._counters.enter, holder.id, limit, number)
                if lease is None:
                    text = f"{holder.name} may have {limit} sequences running, and there is no room for {number} more. Wait for one to end."
                    raise TooManyRequests(text, retry_after=1)
                ticket.leases.append((holder.id, lease))

    def _settle(self, ticket: Ticket, used: int) -> None:
        """Count the tokens, also of an answer that its client did not wait for, and give the places back."""
        counters = self._counters
        try:
            for holder in ticket.holders:
                if holder.limits.tokens and used:
                    self._ask(counters.add_tokens, holder.id, holder.limits.tokens, used)
            while ticket.leases:  # last: whoever gets the place has to see the tokens
                holder_id, lease = ticket.leases.pop()
                self._ask(counters.leave, holder_id, lease)
        except _Lost:
            pass  # they are lost with it; leases end by themselves

    def _ask(self, question: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        """Raises _Lost; one that failed is not asked again for a while, so that requests do not wait for it."""
        if self._lost_until is not None and time.monotonic() < self._lost_until:
            raise _Lost
        try:
            answer = question(*args, **kwargs)
        except self._counters.failures as error:
            if self._lost_until is None:
                meanwhile = "requests pass uncounted" if self._fail_open else "requests for text get a 503"
                logs.app.error("Redis cannot be reached for the rate limits ({}): {}", type(error).__name__, meanwhile)
            self._lost_until = time.monotonic() + LOST_SECONDS
            raise _Lost from None
        if self._lost_until is not None:
            self._lost_until = None
            logs.app.info("Redis counts the rate limits again")
        return answer


def quotas() -> Quotas:
    """The app's."""
    limits: Quotas = flask.current_app.extensions["quotas"]
    return limits


def held() -> Ticket | None:
    """The ticket of the request at hand."""
    ticket: Ticket | None = flask.g.get("ticket")
    return ticket


def _merge(ticket: Ticket, what: str, window: Window) -> None:
    """Of a key's and an address's window, the headers have the one that the client will reach first."""
    if what not in ticket.windows or window.left < ticket.windows[what].left:
        ticket.windows[what] = window


def _refusal(holder: Holder, limit: str, window: Window) -> TooManyRequests:
    seconds = max(1, math.ceil(window.reset))
    return TooManyRequests(f"{holder.name} has used its {limit}. Try again in {_span(seconds)}.", retry_after=seconds)


def _span(seconds: float) -> str:
    """As OpenAI writes it: 7s, 1m0s."""
    whole = math.ceil(seconds)
    return f"{whole // 60}m{whole % 60}s" if whole >= 60 else f"{whole}s"
