"""The emergency exit: takes our programs off the cgroups, even if a hung agent still holds them."""

from __future__ import annotations

import json

from agent import libbpf
from agent.bcc_child import PROGRAMS

__all__ = ["OWN_NAMES", "detach_all", "own_links", "show_detach"]

OWN_NAMES = frozenset(name[:15] for name, *_ in PROGRAMS)  # the kernel keeps 15 characters


def own_links() -> list[int]:
    """The links to programs of ours on this host, whoever holds them. Needs root (CAP_SYS_ADMIN)."""
    return [link for link, program, cgroup in libbpf.links() if cgroup and libbpf.program_name(program) in OWN_NAMES]


def detach_all() -> int:
    """Detaches every link to a program of ours on this host; returns how many. Needs root (CAP_SYS_ADMIN).

    A running agent notices and goes on, applying nothing; restart it to attach again.
    """
    ours = own_links()
    for link in ours:
        libbpf.detach_link(link)
    return len(ours)


def show_detach(*, as_json: bool) -> int:
    """The command `detach`."""
    count = detach_all()
    if as_json:
        print(json.dumps({"detached": count}))
    elif count:
        print(f"detached {count} programs; new connections get the kernel's defaults")
    else:
        print("nothing of tcptuned is attached")
    return 0
