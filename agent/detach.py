"""The emergency exit: takes our programs off the cgroups, even if a hung agent still holds them."""

from __future__ import annotations

import json

from agent import libbpf
from agent.bcc_child import PROGRAMS

__all__ = ["detach_all", "show_detach"]


def detach_all() -> int:
    """Detaches every link to a program of ours on this host; returns how many. Needs root (CAP_SYS_ADMIN).

    A running agent notices and goes on, applying nothing; restart it to attach again.
    """
    # The kernel keeps 15 characters of a name.
    names = {name[:15] for name, *_ in PROGRAMS}
    ours = [link for link, program, cgroup in libbpf.links() if cgroup and libbpf.program_name(program) in names]
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
