"""The register of paths against a dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.identities import Identities, identities
from agent.libbpf import Array

GROUPS = 3
# Few addresses, so that they come again, some with zeros at the end.
NAMES = st.tuples(st.integers(0, 40), st.sampled_from([0, 48, 120]), st.integers(0, GROUPS - 1))


def address(number: int) -> bytes:
    return (number << 120 if number % 2 else number).to_bytes(16, "big")


def some(names: list[tuple[int, int, int]]) -> Array:
    raw = np.frombuffer(b"".join(address(number) for number, _, _ in names), np.uint8)
    return identities(raw, np.array([bits for _, bits, _ in names]), np.array([group for _, _, group in names]))


@settings(deadline=None)
@given(st.lists(st.lists(NAMES, min_size=1, max_size=30), max_size=8), st.randoms(use_true_random=False))
def test_like_a_dictionary(batches: list[list[tuple[int, int, int]]], random: object) -> None:
    """Rows come in any batches, are found again, and forgetting moves the others together in their order."""
    found, expected = Identities(GROUPS), dict[tuple[int, int, int], int]()
    for number, batch in enumerate(batches):
        each, once, new = found.rows_of(some(batch))
        appeared = set(batch) - set(expected)
        assert sorted(new) == list(range(GROUPS + len(expected), GROUPS + len(expected) + len(appeared)))
        assert sorted(once) == sorted(set(each.tolist()))
        expected |= dict(zip(batch, each.tolist(), strict=True))
        assert len(found) == GROUPS + len(expected) == GROUPS + len(set(expected.values()))
        if number % 3 == 2:
            kept = sorted(random.sample(sorted(expected.values()), len(expected) // 2))  # type: ignore[attr-defined]
            found.keep(np.array([*range(GROUPS), *kept]))
            expected = {name: GROUPS + kept.index(row) for name, row in expected.items() if row in kept}
        for name in set(batch):
            assert found.find(address(name[0]), *name[1:]) == expected.get(name)
        for (_, bits, group), row in expected.items():
            assert found.all[["bits", "group"]][row].tolist() == (bits, group)


def test_room_for_many() -> None:
    """Room grows with the paths, and those that were there stay."""
    found = Identities(1)
    for first in range(0, 5000, 500):
        raw = np.arange(first, first + 500, dtype=">u8").repeat(2).view(np.uint8)
        rows = found.append(identities(raw, np.full(500, 120), np.zeros(500)))
        assert rows.tolist() == list(range(first + 1, first + 501))
    assert found.find(np.array([7, 7], ">u8").tobytes(), 120, 0) == 8
    assert len(found) == 5001
