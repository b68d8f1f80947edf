"""What option strings mean to a server: the wire format of bpf/wire.h and the grants of bpf/grant.h, written a second
time, from their description alone, in plain Python.

A new option is one more function from (options, server, answer) to nothing, called where its bytes may stand: in SYN,
in the ACK that ends the handshake, or later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

__all__ = ["Answer", "Server", "chain", "established", "is_sound", "later"]

END, NOP = 0, 1
USER_TIMEOUT, EXPERIMENT = 28, 254
RATE_EXID = b"\x00\xac"
# What tcp_parse_options knows itself (net/ipv4/tcp_input.c); a segment without any other kind is not shown to programs.
KERNELS_OWN = {2, 3, 4, 5, 8, 19, 29, 34}
FAST_OPEN_EXID = b"\xf9\x89"


class Malformed(Exception):  # noqa: N818  it is an answer as much as an error
    """The string ends in the middle of an option, or an option says that it is shorter than two bytes."""


@dataclass(frozen=True)
class Server:
    """The side that is asked.

    honours        the network that the client is in
    algorithms     by number on the wire: those granted
    user_timeout   seconds: what it sends itself (0: nothing), L_LIMIT and U_LIMIT (RFC 5482)
    window_max     segments
    thinning_max   segments; 0: no ACK is dropped
    """

    honours: bool
    exid: int
    algorithms: Mapping[int, str]
    user_timeout: tuple[int, int, int]
    window_max: int
    thinning_max: int


@dataclass
class Answer:
    """What the server's socket becomes, and what is counted: (extension, outcome) to number.

    None and 0 are the kernel's defaults. `user_timeout` and `rto_min` are milliseconds; ACKs wait RTT / `ack_divisor`.
    """

    congestion: str | None = None
    window: int | None = None
    user_timeout: int = 0
    rto_min: int | None = None
    ack_divisor: int = 0
    rate_capable: bool = False
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def count(self, extension: str, outcome: str) -> bool:
        """Counts, and tells whether it is a grant."""
        self.counts[extension, outcome] += 1
        return outcome == "granted"


def walk(options: bytes) -> Iterator[bytes]:
    """The options one after the other, without NOPs, up to the end of options. Raises Malformed."""
    at = 0
    while at < len(options) and options[at] != END:
        if options[at] == NOP:
            at += 1
            continue
        if len(options) - at < 2 or not 2 <= options[at + 1] <= len(options) - at:
            raise Malformed
        yield options[at : at + options[at + 1]]
        at += options[at + 1]


def chain(options: bytes) -> list[bytes]:
    """The options up to what makes no sense."""
    found = []
    with suppress(Malformed):
        for option in walk(options):
            found.append(option)  # noqa: PERF402  what came before the error counts
    return found


def is_sound(options: bytes) -> bool:
    """Whether the string makes sense to its end."""
    try:
        return bool([*walk(options), b""])
    except Malformed:
        return False


def find(options: bytes, kind: int, magic: bytes = b"") -> bytes | None:
    """The first such option, as the kernel searches for a program (net/core/filter.c, bpf_search_tcp_opt).

    Raises Malformed if the search comes across what makes no sense.
    """
    for option in walk(options):
        if option[0] == kind:
            # An option too short to be the wanted one ends the search: an oddity of the kernel's.
            if len(option) - 2 < len(magic):
                return None
            if option[2:].startswith(magic):
                return option
    return None


def is_shown(options: bytes) -> bool:
    """Whether the kernel shows a later segment with these options to programs."""
    return any(
        option[0] not in KERNELS_OWN and not (option[0] == EXPERIMENT and option[2:4] == FAST_OPEN_EXID)
        for option in chain(options)
    )


def ours(server: Server, subtype: int) -> bytes:
    """ExID, version 1 and a subtype."""
    return server.exid.to_bytes(2) + bytes([1, subtype])


def read_requests(options: bytes, server: Server, answer: Answer) -> None:
    """254, 8 or more, ExID, 1, 1, algorithm, segments [, segments an ACK, RTT divisor [, what is not read]]."""
    try:
        option = find(options, EXPERIMENT, ours(server, 1))
    except Malformed:
        option = b""
    if option is None:
        return
    if not 8 <= len(option) <= 16:
        answer.count("window_request", "refused_malformed")
        return
    algorithm, window, segments, divisor = (*option[6:10], 0, 0)[:4]
    for extension, asked in (("congestion_request", algorithm), ("window_request", window), ("ack_request", segments)):
        if asked:
            answer.count(extension, "received")
            if not server.honours:
                answer.count(extension, "refused_network")
    if not server.honours:
        return
    if segments:
        grant_rate(segments, divisor, server, answer)
    if window and answer.count("window_request", "granted"):
        answer.window = max(2, min(window, server.window_max))
    if algorithm:
        known = algorithm in server.algorithms
        if answer.count("congestion_request", "granted" if known else "refused_algorithm"):
            answer.congestion = server.algorithms[algorithm]


def grant_rate(segments: int, divisor: int, server: Server, answer: Answer) -> None:
    """Fewer ACKs by thinning, if that is on; more by a shorter delay."""
    if segments >= 4:
        answer.count("ack_request", "granted" if server.thinning_max else "refused_off")
    elif answer.count("ack_request", "granted"):
        answer.ack_divisor = divisor or 4


def read_user_timeout(options: bytes, answer: Answer) -> int:
    """28, 4, G and 15 bits. Returns seconds; 0 for nothing that counts."""
    try:
        option = find(options, USER_TIMEOUT)
    except Malformed:
        option = b""
    if option is None:
        return 0
    answer.count("user_timeout", "received")
    value = int.from_bytes(option[2:]) if len(option) == 4 else 0
    if not value & 0x7FFF:
        answer.count("user_timeout", "refused_malformed")
        return 0
    return (value & 0x7FFF) * (60 if value & 0x8000 else 1)


def honoured_timeout(theirs: int, server: Server, answer: Answer) -> int:
    """What a client said, or 0 for a stranger."""
    if theirs and not server.honours:
        answer.count("user_timeout", "refused_network")
        return 0
    return theirs


def set_user_timeout(theirs: int, server: Server, answer: Answer) -> None:
    """min(U_LIMIT, max(ADV_UTO, REMOTE_UTO, L_LIMIT)); counted when it changes."""
    mine, least, most = server.user_timeout
    timeout = 1000 * min(most, max(mine, theirs, least))
    if timeout != answer.user_timeout and answer.count("user_timeout", "granted"):
        answer.user_timeout = timeout


def read_ack_delay(options: bytes, server: Server, answer: Answer) -> None:
    """254, 8 or more, ExID, 1, 2, milliseconds: the least retransmission timeout follows, within 20 and 200 ms."""
    try:
        option = find(options, EXPERIMENT, ours(server, 2))
    except Malformed:
        option = b""
    if option is None:
        return
    answer.count("ack_announcement", "received")
    delay = int.from_bytes(option[6:8]) if 8 <= len(option) <= 16 else 0
    if not delay:
        answer.count("ack_announcement", "refused_malformed")
    elif answer.count("ack_announcement", "granted" if server.honours else "refused_network"):
        answer.rto_min = delay


def find_rate(options: bytes) -> bytes:
    """254, 4 to 8, 00AC; empty where there is none."""
    try:
        option = find(options, EXPERIMENT, RATE_EXID)
    except Malformed:
        return b""
    return option if option and len(option) <= 8 else b""


def read_rate(options: bytes, server: Server, answer: Answer) -> None:
    """254, 5, 00AC, segments << 1; only after a SYN that had the option too."""
    option = find_rate(options)
    if not answer.rate_capable or len(option) != 5:
        return
    answer.count("ack_request", "received")
    if not server.honours:
        answer.count("ack_request", "refused_network")
    elif not option[4] >> 1:
        answer.count("ack_request", "refused_kernel")
    else:
        grant_rate(option[4] >> 1, 0, server, answer)


def established(syn: bytes, ack: bytes, server: Server) -> Answer:
    """The answer to the options of a SYN and of the ACK that ended the handshake."""
    answer = Answer()
    answer.rate_capable = bool(find_rate(syn))
    read_requests(syn, server, answer)
    # The ACK has it again, for SYNs that had no room.
    theirs = honoured_timeout(read_user_timeout(syn, answer) or read_user_timeout(ack, answer), server, answer)
    read_ack_delay(ack, server, answer)
    read_rate(ack, server, answer)
    if theirs or server.user_timeout[0]:
        set_user_timeout(theirs, server, answer)
    return answer


def later(options: bytes, server: Server, before: Answer) -> Answer:
    """What the options of a later segment make of an answer."""
    answer = replace(before, counts=before.counts.copy())
    if not is_shown(options):
        return answer
    theirs = honoured_timeout(read_user_timeout(options, answer), server, answer)
    if theirs:
        set_user_timeout(theirs, server, answer)
    read_ack_delay(options, server, answer)
    read_rate(options, server, answer)
    return answer
