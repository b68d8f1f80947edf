"""The types of single configuration values.

Python code may give durations in seconds and networks as `ipaddress` objects; a file must write them as text.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    Strict,
    WithJsonSchema,
)
from pydantic import ValidationInfo as Info
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from agent.config_checks import Between, Check, Conflict, not_text, printable, refusal
from agent.units import format_duration, parse_duration

__all__ = [
    "ALGORITHMS",
    "AbsolutePath",
    "Algorithm",
    "Cgroup",
    "Duration",
    "ExperimentId",
    "FromList",
    "GroupName",
    "ListenAddress",
    "Network",
    "NonEmpty",
    "OnlyTrue",
    "PrometheusUrl",
    "RequestedAlgorithm",
    "Section",
    "Unique",
    "UserTimeoutValue",
    "listen_parts",
]

AnyNetwork = IPv4Network | IPv6Network

# RFC 6994 experiment identifiers that others registered: TCP Fast Open, ACK rate request, Accurate ECN (order 0 and 1).
_MAPPED = IPv6Network("::ffff:0:0/96")
_TAKEN_EXPERIMENTS = {0xF989: "TCP Fast Open", 0x00AC: "TARR", 0xACC0: "AccECN", 0xACC1: "AccECN"}
_LARGEST_UTO = 32767  # RFC 5482, section 3: 15 bits, of seconds or of minutes


# The numbers of algorithms on the wire, from 1; never reorder. 4 is dctcp (bpf/consts.h).
ALGORITHMS = (
    "reno", "cubic", "bbr", "dctcp", "westwood", "htcp", "hybla", "vegas", "veno", "illinois", "scalable", "lp",
)  # fmt: skip


class Section(BaseModel):
    """What all sections share: unknown keys are refused, nothing is converted silently, nothing changes later."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


@dataclass(frozen=True)
class Duration:
    """A duration between `low` and `high` seconds: text such as `1h30m` in a file, a float of seconds in the model."""

    low: float
    high: float

    def read(self, value: object, info: Info) -> float:
        """Seconds in `value`."""
        if isinstance(value, str):
            try:
                seconds = parse_duration(value)
            except ValueError as error:
                raise refusal(f"{error}, not {value[:40]!r}") from None
        elif not isinstance(value, int | float) or isinstance(value, bool):
            raise not_text("a duration such as 250ms, 1s, 10m or 1h30m")
        elif info.context:
            raise refusal(f"must be a duration with its unit, such as {value}s, not the bare number {value}")
        else:
            seconds = float(value)
        if not self.low <= seconds <= self.high:
            raise refusal(f"must be {self}, not {value}")
        return seconds

    def __str__(self) -> str:
        return f"{format_duration(self.low)} to {format_duration(self.high)}"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # JSON for people and editors shows the text, as the file does; the model itself keeps seconds.
        as_text = core_schema.plain_serializer_function_ser_schema(format_duration, when_used="json")
        return core_schema.with_info_plain_validator_function(self.read, serialization=as_text)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # The order of the units and the bounds are left to `tcptuned check`.
        pattern = r"^([0-9]{1,9}(\.[0-9]{1,6})?(ms|[dhms]))+$"
        return {"type": "string", "pattern": pattern, "description": f"a duration of {self}"}


def _user_timeout(seconds: float) -> float:
    if seconds > _LARGEST_UTO and seconds % 60:
        raise refusal(f"above {_LARGEST_UTO} seconds must be whole minutes: RFC 5482 sends nothing finer")
    if seconds % 1:
        raise refusal("must be whole seconds: RFC 5482 sends nothing finer")
    return seconds


def _matching(pattern: str, text: str) -> Check:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if compiled.fullmatch(value) is None:
            raise refusal(f"must be {text}, not {value[:40]!r}")
        return value

    return Check(check, {"pattern": f"^{pattern}$"})


def _network(value: object) -> AnyNetwork:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise not_text("a network such as 203.0.113.0/24 or 2001:db8::/32")
    if "%" in value:
        raise refusal("must be a network without a zone: leave out the part from % on")
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise refusal(f"must be a network such as 203.0.113.0/24 or 2001:db8::/32, not {value[:50]!r}") from None
    # Mapped into IPv6 (RFC 4291, section 2.5.5.2) it would have the same place in the kernel, and IPv6's prefix.
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        same = IPv4Network((network.network_address.packed[12:], network.prefixlen - _MAPPED.prefixlen))
        raise refusal(f"{network} is an IPv4 network: write {same}")
    if ip_interface(value).ip != network.network_address:
        raise refusal(f"{value} has host bits set; the network is {network}")
    return network


def _absolute(value: object) -> Path:
    if not isinstance(value, str | Path):
        raise not_text("an absolute path, such as /var/lib/tcptuned")
    if not str(value).startswith("/") or "\0" in str(value):
        raise refusal("must be an absolute path, such as /var/lib/tcptuned")
    return Path(value)


def _cgroup(value: str) -> str:
    if not value or "\0" in value or ".." in value.split("/"):
        raise refusal(
            "must be auto, an absolute path, or a path below the cgroup v2 mount such as system.slice/nginx.service"
        )
    return value


def listen_parts(value: str) -> tuple[str, int]:
    """Host (an IPv6 address without its brackets) and port of `host:port`; ValueError when it is not that."""
    host, colon, port = value.rpartition(":")
    if not colon or re.fullmatch("[0-9]{1,5}", port) is None or int(port) > 65535:
        raise ValueError("port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ip_address(host).version != 6:
            raise ValueError("brackets")
    elif re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})", host) is None:
        raise ValueError("host")
    return host, int(port)


def _listen(value: str) -> str:
    try:
        listen_parts(value)
    except ValueError:
        hint = f" (all addresses: 0.0.0.0{value} or [::]{value})" if re.fullmatch(":[0-9]+", value) else ""
        raise refusal(f'must be "host:port" or "[IPv6 address]:port" with a port up to 65535{hint}') from None
    return value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or re.search(r"[\s\0-\x1f]", value):
        raise refusal("must be the http:// or https:// address of a Prometheus server, such as http://prometheus:9090")
    return value


def _experiment(value: int) -> int:
    if owner := _TAKEN_EXPERIMENTS.get(value):
        raise refusal(f"0x{value:04X} belongs to {owner}; choose another experiment identifier")
    return value


def _on_the_wire(value: str) -> str:
    if value not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise refusal(f"{printable(value[:40])} has no number on the wire; those that have one: {known}")
    return value


def _only_true(value: bool) -> bool:
    if not value:
        raise refusal("must be true or null, not false")
    return value


def _unique(values: Sequence[Hashable]) -> Sequence[Hashable]:
    seen = set()
    repeated = []
    for index, value in enumerate(values):
        if value in seen:
            repeated.append(Conflict(f"{printable(str(value))} is listed twice; delete one", (index,)))
        seen.add(value)
    if repeated:
        raise refusal(*repeated)
    return values


def _not_empty(values: Sequence[object]) -> Sequence[object]:
    if not values:
        raise refusal("must list at least one")
    return values


# A strict tuple would refuse the list that a file holds; its items stay strict.
FromList = Strict(False)
Unique = Check(_unique, {"uniqueItems": True})
NonEmpty = Check(_not_empty, {"minItems": 1})


def _text(pattern: str) -> WithJsonSchema:
    """What editors are told of a value that a file holds as text."""
    return WithJsonSchema({"type": "string", "pattern": pattern})


AbsolutePath = Annotated[Path, PlainValidator(_absolute), _text("^/")]
# TCP_CA_NAME_MAX of linux/tcp.h is 16 with the final zero.
_ALGORITHM = _matching("[a-z0-9_-]{1,15}", "an algorithm's name such as cubic (a-z, 0-9, _ and -; at most 15)")
Algorithm = Annotated[str, _ALGORITHM]
RequestedAlgorithm = Annotated[str, Check(_on_the_wire, {"enum": list(ALGORITHMS)})]
Cgroup = Annotated[str, Check(_cgroup, {"minLength": 1})]
ExperimentId = Annotated[int, Between(1, 65535), Check(_experiment, {"not": {"enum": list(_TAKEN_EXPERIMENTS)}})]
Network = Annotated[AnyNetwork, PlainValidator(_network), _text("^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$")]
GroupName = Annotated[str, _matching("[a-z0-9_]{1,32}", "a name of a-z, 0-9 and _ (at most 32)")]
ListenAddress = Annotated[str, Check(_listen, {"pattern": ":[0-9]{1,5}$"})]
OnlyTrue = Annotated[bool, Check(_only_true, {"const": True})]
PrometheusUrl = Annotated[str, Check(_url, {"pattern": "^https?://[^ ]+$"})]
UserTimeoutValue = Annotated[float, Duration(1, _LARGEST_UTO * 60), Check(_user_timeout)]
