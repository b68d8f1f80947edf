"""Which address shows what. No sockets here: a path in, a response out."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from ipaddress import ip_address
from typing import Any, Protocol, TypeAlias
from urllib.parse import parse_qs, urlsplit

from prometheus_client import make_wsgi_app

from agent import page, path_facts, status
from agent.abilities import Abilities
from agent.errors import TcptunedError, UsageError
from agent.exporter import registry
from agent.history import History
from agent.page_style import STYLE_HASH
from agent.snapshot import Snapshot
from agent.tuner import Tuner

__all__ = ["MOST_PATHS", "Agent", "Response", "Routes", "plain"]


Headers: TypeAlias = "Message[str, str]"

MOST_PATHS = 1000
_PATIENCE = 2.0  # seconds to wait for the loop; a step takes a fraction of one
_GLANCE = 0.5  # the same for the page, which has other things to show

_SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": f"default-src 'none'; style-src '{STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Agent(Protocol):
    """What the pages need of the service."""

    @property
    def snapshot(self) -> Snapshot:
        """The last picture; never changed once made."""
        ...

    @property
    def tuner(self) -> Tuner:
        """To be touched only while `lock` is held."""
        ...

    @property
    def history(self) -> History:
        """The effect over time."""
        ...

    @property
    def lock(self) -> threading.Lock:
        """Held by the loop while it changes the tuner."""
        ...

    def ready(self) -> bool:
        """Attached, and the last sample is recent."""
        ...

    def healthy(self) -> bool:
        """No job hangs."""
        ...


@dataclass(frozen=True)
class Response:
    """What to send back; `headers` has neither length nor connection."""

    code: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def plain(code: int, text: str, **headers: str) -> Response:
    """A short text."""
    return Response(code, f"{text}\n".encode(), {"Content-Type": "text/plain; charset=utf-8", **_SECURITY, **headers})


class Routes:
    """All pages."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._abilities = Abilities()
        self._metrics = make_wsgi_app(registry(lambda: agent.snapshot))
        self._pages: dict[str, Callable[[str, Headers], Response]] = {
            "/": self._page,
            "/metrics": self._scrape,
            "/-/healthy": self._healthy,
            "/-/ready": self._ready,
            "/api/v1/status": self._status,
            "/api/v1/paths": self._paths,
            "/api/v1/history": lambda *_: _json(200, agent.history.facts()),
        }

    def respond(self, target: str, headers: Headers) -> Response:
        """The response to GET `target` (path and query)."""
        try:
            parts = urlsplit(target)
        except ValueError:
            return plain(400, "the address is malformed")
        show = self._pages.get(parts.path)
        return plain(404, "there is no such page; / has links to all") if show is None else show(parts.query, headers)

    def _page(self, query: str, _headers: Headers) -> Response:
        facts = status.status(self._agent.snapshot)
        try:
            with self._tuner(_GLANCE) as tuner:
                paths = path_facts.paths(tuner, limit=page.PATHS, offset=0, group=None, busiest_first=True)
        except TcptunedError:
            paths = None
        # The configuration never changes, it is replaced: no need for the lock.
        findings = self._abilities.findings(self._agent.tuner.config)
        refresh = query != "refresh=off"
        text = page.render(facts, ready=self._agent.ready(), paths=paths, findings=findings, refresh=refresh)
        return Response(200, text.encode(), {"Content-Type": "text/html; charset=utf-8", **_SECURITY})

    def _scrape(self, query: str, headers: Headers) -> Response:
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/metrics",
            "QUERY_STRING": query,
            "HTTP_ACCEPT": headers["Accept"],
            "HTTP_ACCEPT_ENCODING": headers["Accept-Encoding"],
        }
        answered: dict[str, str] = {}
        body = b"".join(self._metrics(environ, lambda _, found: answered.update(found)))
        return Response(200, body, {**answered, **_SECURITY})

    def _healthy(self, _query: str, _headers: Headers) -> Response:
        if self._agent.healthy():
            return plain(200, "tcptuned is running")
        return plain(503, "not healthy: a job hangs, or fails again and again; restart the agent, the log tells more")

    def _ready(self, _query: str, _headers: Headers) -> Response:
        if self._agent.ready():
            return plain(200, "tcptuned is ready")
        return plain(503, "not ready: not attached, or the last sample is old; /metrics and the log tell more")

    def _status(self, _query: str, _headers: Headers) -> Response:
        return _json(200, status.status(self._agent.snapshot) | {"ready": self._agent.ready()})

    def _paths(self, query: str, _headers: Headers) -> Response:
        try:
            wanted = _only(query, ("address", "limit", "offset", "group", "order"))
            if "address" not in wanted:
                limit = _number(wanted, "limit", 100, 1, MOST_PATHS)
                offset = _number(wanted, "offset", 0, 0, 1 << 31)
                with self._tuner() as tuner:
                    group = wanted.get("group")
                    if group is not None and group not in tuner.groups:
                        raise UsageError("there is no such group; /api/v1/status lists them")
                    order = wanted.get("order", "appearance")
                    if order not in ("appearance", "transfers"):
                        raise UsageError("order is appearance or transfers")
                    busiest = order == "transfers"
                    facts = path_facts.paths(tuner, limit=limit, offset=offset, group=group, busiest_first=busiest)
                    return _json(200, facts)
            if len(wanted) > 1:
                raise UsageError("address goes without other parameters")
            try:
                address = ip_address(wanted["address"])
            except ValueError:
                raise UsageError("address must be an IPv4 or IPv6 address, such as 203.0.113.7") from None
            if "%" in wanted["address"]:
                raise UsageError("address must be without a zone: leave out the part from % on")
            with self._tuner() as tuner:
                return _json(200, path_facts.explain(tuner, address))
        except TcptunedError as error:
            return _json(400 if isinstance(error, UsageError) else 503, {"error": str(error)})

    @contextmanager
    def _tuner(self, patience: float = _PATIENCE) -> Iterator[Tuner]:
        lock = self._agent.lock
        if not lock.acquire(timeout=patience):
            raise TcptunedError("the agent is busy; try again")
        try:
            yield self._agent.tuner
        finally:
            lock.release()


def _only(query: str, allowed: tuple[str, ...]) -> dict[str, str]:
    """The parameters of a query; each at most once."""
    try:
        found = parse_qs(query, keep_blank_values=True, max_num_fields=10)
    except ValueError:
        raise UsageError("too many parameters") from None
    if any(name not in allowed or len(values) > 1 for name, values in found.items()):
        raise UsageError(f"the parameters are {', '.join(allowed)}, each at most once")
    return {name: values[0] for name, values in found.items()}


def _number(wanted: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = wanted.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) <= most):
        raise UsageError(f"{name} must be a number from {least} to {most}")
    return int(text)


def _json(code: int, facts: Mapping[str, Any]) -> Response:
    body = json.dumps(facts, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    return Response(code, body, {"Content-Type": "application/json; charset=utf-8", **_SECURITY})
