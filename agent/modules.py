"""Congestion controls that are kernel modules not loaded yet, as bbr is on Debian."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable

from agent import features

__all__ = ["load"]

logger = logging.getLogger(__name__)


def load(names: Iterable[str]) -> None:
    """Has the kernel load the algorithms of `names` that are not registered.

    A BPF program cannot: for it the kernel only takes what is there. A socket's option of one with CAP_NET_ADMIN can
    (net/ipv4/tcp_cong.c, tcp_ca_find_autoload). No connection has the algorithm for that. What the kernel does not
    have, or may not load, is left out as ever; `doctor` tells.
    """
    for name in sorted(set(names) - set(features.algorithms())):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as asking:
            try:
                asking.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode("ascii"))
            except OSError as error:
                logger.info("congestion control %s is left out: %s", name, error.strerror)
            else:
                logger.info("the kernel loaded congestion control %s", name)
