"""Rate limits per key and per address: who may send a request for text now, and the x-ratelimit headers. Knows not where it is counted.

A key's own limits come before the settings' ones. Without keys only addresses have limits.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar

import flask
import msgspec

from src import logs
from src.api.access import asker, scope_of
from src.api.address import network_of
from src.api.counters import Counters, Window
from src.api.record import Record, record
from src.errors import RateLimitsUnavailable, TooManyRequests
from src.keys import Key
from src.settings import Settings

Question = ParamSpec("Question")
Result = TypeVar("Result")
LOST_SECONDS = 5.0  # after Redis failed, before it is asked again


class Limits(NamedTuple):
    """0: none."""

    requests: int
    tokens: int
    concurrent: int


class Holder(NamedTuple):
    id: str
    told: str  # to a client, of itself
    limits: Limits


class Ticket(msgspec.Struct):
    """What a request holds while it runs, and what its client is told."""

    holders: list[Holder]
    leases: list[tuple[str, str]] = []
    windows: dict[str, Window] = {}


class _Lost(Exception):
    """Redis is out of reach."""


class Quotas:
    def __init__(self, settings: Settings, lease: float) -> None:
        self._of_keys = Limits(settings.rate_limit_requests, settings.rate_limit_tokens, settings.rate_limit_concurrent)
        self._of_addresses = Limits(
            settings.rate_limit_address_requests, settings.rate_limit_address_tokens, settings.rate_limit_address_concurrent
        )
        self._fail_open = settings.rate_limit_fail_open
        self._counters = Counters(settings.read_rate_limit_storage(), lease)
        self._lost_until: float | None = None

    def admit(self) -> None:
        """Before a request for text. Raises TooManyRequests, RateLimitsUnavailable."""
        request = flask.request
        if request.method != "POST" or request.url_rule is None or scope_of(request.endpoint) != "inference":
            return
        holders = [holder for holder in self._holders(asker(), record().client or "") if any(holder.limits)]
        if not holders:
            return
        flask.g.ticket = ticket = Ticket(holders)
        try:
            self._admit(ticket)
        except _Lost:
            if not self._fail_open:
                raise RateLimitsUnavailable("The server's rate limits cannot be counted at the moment.", retry_after=5) from None

    def tell(self, response: flask.Response) -> flask.Response:
        """After a request: OpenAI's headers; what it used is counted when its body is through."""
        ticket: Ticket | None = flask.g.get("ticket")
        if ticket is None:
            return response
        for what, window in ticket.windows.items():
            response.headers[f"x-ratelimit-limit-{what}"] = str(window.limit)
            response.headers[f"x-ratelimit-remaining-{what}"] = str(window.left)
            response.headers[f"x-ratelimit-reset-{what}"] = _span(window.reset)
        of = record()
        response.call_on_close(lambda: self._settle(ticket, of))
        return response

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
                _keep(ticket, "tokens", window)
                if not window.left:
                    raise _refusal(holder, f"{limit} tokens a minute", window)
        for holder in ticket.holders:
            if limit := holder.limits.concurrent:
                lease = self._ask(counters.enter, holder.id, limit)
                if lease is None:
                    raise TooManyRequests(f"{holder.told} has {limit} requests running, as many as it may. Wait for one.", retry_after=1)
                ticket.leases.append((holder.id, lease))
        for holder in ticket.holders:
            if limit := holder.limits.requests:
                taken, window = self._ask(counters.take_request, holder.id, limit)
                _keep(ticket, "requests", window)
                if not taken:
                    raise _refusal(holder, f"{limit} requests a minute", window)

    def _settle(self, ticket: Ticket, of: Record) -> None:
        """Count the tokens, also of an answer that its client did not wait for, and give the places back."""
        counters, used = self._counters, of.tokens_used
        try:
            while ticket.leases:
                holder_id, lease = ticket.leases.pop()
                self._ask(counters.leave, holder_id, lease)
            for holder in ticket.holders:
                if holder.limits.tokens and used:
                    self._ask(counters.add_tokens, holder.id, holder.limits.tokens, used)
        except _Lost:
            pass  # they are lost with it; leases end by themselves

    def _ask(self, question: Callable[Question, Result], *given: Question.args, **named: Question.kwargs) -> Result:
        """Raises _Lost; one that failed is not asked again for a while, so that requests do not wait for it."""
        if self._lost_until is not None and time.monotonic() < self._lost_until:
            raise _Lost
        try:
            answer = question(*given, **named)
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


def _keep(ticket: Ticket, what: str, window: Window) -> None:
    """Of a key's and an address's, the client is told the one it will meet first."""
    if what not in ticket.windows or window.left < ticket.windows[what].left:
        ticket.windows[what] = window


def _refusal(holder: Holder, limit: str, window: Window) -> TooManyRequests:
    seconds = max(1, math.ceil(window.reset))
    return TooManyRequests(f"{holder.told} has used its {limit}. Try again in {_span(seconds)}.", retry_after=seconds)


def _span(seconds: float) -> str:
    """As OpenAI writes it: 7s, 1m0s."""
    whole = math.ceil(seconds)
    return f"{whole // 60}m{whole % 60}s" if whole >= 60 else f"{whole}s"
