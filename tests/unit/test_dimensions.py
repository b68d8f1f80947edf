"""What is tuned: the arms that the configuration allows and the kernel has."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from handmade import StillKernel
from hypothesis import given
from hypothesis import strategies as st

from agent.bpf_source import constants
from agent.config import Ack, Config, Congestion, InitialWindow
from agent.dimensions import ACK, CONGESTION, DIMENSIONS, INITIAL_WINDOW, Dimension, arm_table, dimensions
from controllers import LAWS
from controllers.initial_window import ladder

ARMS = constants()["ARMS"]
KERNEL = ("reno", "cubic", "bbr", "dctcp")


def of(
    config: Config, *, algorithms: tuple[str, ...] = KERNEL, host_congestion: str = "cubic"
) -> dict[str, Dimension]:
    found = dimensions(config, algorithms=algorithms, host_congestion=host_congestion)
    assert tuple(one.name for one in found) == DIMENSIONS
    return {one.name: one for one in found}


def names(dimension: Dimension) -> list[str]:
    return [arm.name for arm in dimension.arms]


def test_the_kernel_numbers_the_dimensions_alike() -> None:
    for number, name in enumerate(DIMENSIONS):
        assert constants()[f"DIMENSION_{name.upper()}"] == number
    assert constants()["DIMENSIONS"] == len(DIMENSIONS)


def test_the_defaults() -> None:
    found = of(Config())
    assert names(found[INITIAL_WINDOW]) == ["default", "iw14", "iw20", "iw28", "iw40", "iw56", "iw80"]
    assert names(found[CONGESTION]) == ["default", "bbr", "paced", "bbr-paced"]
    assert names(found[ACK]) == ["default", "delay"]
    assert all(one.arms[0].value == 0 for one in found.values())


@given(st.integers(2, 250), st.integers(2, 250), st.integers(2, ARMS))
def test_the_ladder_keeps_to_its_bounds(one: int, other: int, arms: int) -> None:
    least, most = sorted((one, other))
    windows = ladder(least, most, arms=arms)
    assert len(windows) <= arms - 1
    assert all(before < after for before, after in pairwise(windows))
    assert all(max(11, least) <= window <= most for window in windows)
    # What is allowed at most can be reached, unless the kernel's own is as much.
    assert windows[-1:] == ((most,) if most > 10 else ())


@pytest.mark.parametrize(
    ("least", "most", "windows"),
    [
        (10, 80, (14, 20, 28, 40, 56, 80)),
        (2, 80, (14, 20, 28, 40, 56, 80)),
        (20, 60, (20, 28, 40, 56, 60)),
        (30, 30, (30,)),
        (10, 12, (12,)),
        (10, 10, ()),
        (2, 5, ()),
        (10, 224, (14, 20, 40, 56, 80, 160, 224)),
    ],
)
def test_ladders(least: int, most: int, windows: tuple[int, ...]) -> None:
    assert ladder(least, most, arms=ARMS) == windows


def test_a_long_ladder_still_begins_low() -> None:
    windows = ladder(10, 250, arms=ARMS)
    assert windows[0] == 14
    assert windows[-1] == 250
    assert max(after / before for before, after in pairwise((10, *windows))) < 2.1


@pytest.mark.parametrize(
    ("allowed", "kernel", "host", "arms"),
    [
        (("cubic", "bbr"), ("cubic", "reno"), "cubic", []),
        (("cubic", "bbr"), KERNEL, "bbr", ["cubic"]),
        (("cubic", "bbr"), KERNEL, "reno", ["cubic", "bbr"]),
        (("bbr", "reno", "htcp"), KERNEL, "cubic", ["bbr", "reno"]),
        (("dctcp", "bbr"), KERNEL, "cubic", ["bbr"]),
        (("cubic",), KERNEL, "cubic", []),
    ],
)
def test_only_algorithms_that_are_allowed_and_there(
    allowed: tuple[str, ...], kernel: tuple[str, ...], host: str, arms: list[str]
) -> None:
    found = of(Config(congestion=Congestion(allowed=allowed)), algorithms=kernel, host_congestion=host)
    assert names(found[CONGESTION]) == ["default", *arms, "paced", *(f"{arm}-paced" for arm in arms)]


def test_every_algorithm_has_a_variant_that_is_paced() -> None:
    arms = of(Config(), host_congestion="reno")[CONGESTION].arms
    assert [arm.variant_of for arm in arms] == [None, None, None, 0, 1, 2]
    assert [arm.value for arm in arms] == [0] * 3 + [constants()["ARM_PACED"]] * 3


def test_nothing_is_paced_where_it_is_off_or_the_kernel_hides_rates() -> None:
    off = of(Config(congestion=Congestion(pacing=False)))
    hidden = dimensions(Config(), algorithms=KERNEL, host_congestion="cubic", paces=False)
    assert names(off[CONGESTION]) == names(hidden[DIMENSIONS.index(CONGESTION)]) == ["default", "bbr"]


def test_there_is_room_for_so_many_algorithms() -> None:
    many = tuple(f"algorithm{number}" for number in range(12))
    found = of(Config(congestion=Congestion(allowed=many)), algorithms=many)
    few = many[: ARMS // 2 - 1]
    assert names(found[CONGESTION]) == ["default", *few, "paced", *(f"{name}-paced" for name in few)]
    plain = of(Config(congestion=Congestion(allowed=many, pacing=False)), algorithms=many)
    assert names(plain[CONGESTION]) == ["default", *many[: ARMS - 1]]


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (Config(initial_window=InitialWindow(enabled=False)), INITIAL_WINDOW),
        (Config(congestion=Congestion(enabled=False)), CONGESTION),
        (Config(ack=Ack(enabled=False)), ACK),
        (Config(ack=Ack(delay=False)), ACK),
    ],
)
def test_what_is_off_has_only_the_default(config: Config, name: str) -> None:
    found = of(config)
    assert names(found[name]) == ["default"]
    assert all(len(found[other].arms) > 1 for other in DIMENSIONS if other != name)


@pytest.mark.parametrize(("most", "arms"), [(3, ["default", "delay"]), (10, ["default", "delay", "thin10"])])
def test_thinning_is_an_arm_where_it_is_on(most: int, arms: list[str]) -> None:
    """The kernel acknowledges every second segment by itself; below twice that there is nothing to drop."""
    found = of(Config(ack=Ack(thinning=True, thinning_max=most)))[ACK]
    assert names(found) == arms
    assert [arm.value for arm in found.arms[2:]] == [10 << 8 | 4 << 16] * (len(arms) - 2)


def test_every_law_is_one_that_is_there() -> None:
    for one in of(Config()).values():
        assert one.law is LAWS[one.name, one.law_name]


def test_the_kernel_gets_the_meaning_of_every_arm() -> None:
    chosen = tuple(of(Config()).values())
    table = arm_table(chosen, StillKernel.arm)
    assert table.shape == (constants()["DIMENSIONS"] * ARMS,)
    meant: dict[int, Any] = {number: (int(entry["value"]), entry["congestion"]) for number, entry in enumerate(table)}
    said = {number: one for number, one in meant.items() if one != (0, b"")}
    assert said == {
        **{number: (window, b"") for number, window in enumerate((14, 20, 28, 40, 56, 80), 1)},
        ARMS + 1: (0, b"bbr"),
        ARMS + 2: (1, b""),
        ARMS + 3: (1, b"bbr"),
        2 * ARMS + 1: (4, b""),
    }


def test_the_longest_name_keeps_its_end() -> None:
    """TCP_CA_NAME_MAX is 16 with the final zero."""
    longest = "a" * 15
    chosen = tuple(of(Config(congestion=Congestion(allowed=(longest,))), algorithms=(longest,)).values())
    entry = arm_table(chosen, StillKernel.arm)[ARMS + 1]
    assert entry.tobytes()[4:] == longest.encode() + b"\0"
    assert np.dtype(StillKernel.arm).itemsize == 20
