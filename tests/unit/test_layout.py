"""The numpy types that BCC's types give are the layout that the compiler chose, as the kernel itself knows it (BTF)."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import handmade
import numpy as np
import pytest

from agent.bpf_source import FOLDER, constants, counter_names
from agent.config import Config
from agent.loader import Loader, Objects, map_sizes
from agent.totals import ROW_FIELDS

KEYS = {"policies": "prefix_key", "rows_a": "row_key", "rows_b": "row_key", "honoured": "prefix_key"}
LEAVES = {
    "policies": "policy", "arms": "arm", "control": "control", "rows_a": "row", "rows_b": "row", "rtt": "rtt_histogram",
    "sends": "sends", "algorithms": "arm",
}  # fmt: skip
PLAIN = {"counters": np.uint64, "extensions": np.uint64, "honoured": np.uint32, "adoptable": np.uint32}


@pytest.fixture(scope="module")
def objects() -> Iterator[Objects]:
    if os.geteuid() != 0:
        pytest.fail("loading BPF programs needs root: sudo ./test")
    loaded = Loader(map_sizes(Config())).finish()
    yield loaded
    loaded.close()


class Btf:
    """What the compiler wrote down about the types of a map."""

    def __init__(self, fd: int) -> None:
        identity = re.search(r"map_id:\s+(\d+)", Path(f"/proc/self/fdinfo/{fd}").read_text())
        assert identity is not None
        shown = self._bpftool("map", "show", "id", identity[1])
        self._types = {one["id"]: one for one in self._bpftool("btf", "dump", "id", str(shown["btf_id"]))["types"]}

    @staticmethod
    def _bpftool(*arguments: str) -> Any:
        done = subprocess.run(["bpftool", "--json", *arguments], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    def struct(self, name: str) -> dict[str, Any]:
        (found,) = (one for one in self._types.values() if one["kind"] == "STRUCT" and one["name"] == name)
        return dict(found)

    def resolve(self, identity: int) -> dict[str, Any]:
        found = self._types[identity]
        while found["kind"] in ("TYPEDEF", "CONST", "VOLATILE"):
            found = self._types[found["type_id"]]
        return dict(found)

    def same(self, dtype: np.dtype[Any], compiled: dict[str, Any], where: str) -> int:
        """Raises unless `dtype` is the type `compiled`; returns how many plain fields were compared."""
        if compiled["kind"] == "STRUCT":
            assert dtype.names is not None, where
            assert list(dtype.names) == [member["name"] for member in compiled["members"]], where
            assert dtype.itemsize == compiled["size"], where
            assert dtype.fields is not None
            compared = 0
            for member in compiled["members"]:
                inner, offset, *_ = dtype.fields[member["name"]]
                place = f"{where}.{member['name']}"
                assert 8 * offset == member["bits_offset"], place
                compared += self.same(inner, self.resolve(member["type_id"]), place)
            return compared
        if compiled["kind"] == "ARRAY":
            element = self.resolve(compiled["type_id"])
            if dtype.kind == "S":
                assert (dtype.itemsize, element["size"]) == (compiled["nr_elems"], 1), where
                return 1
            base, shape = dtype.subdtype or (dtype, ())
            assert shape == (compiled["nr_elems"],), where
            return self.same(base, element, where)
        assert compiled["kind"] == "INT", where
        assert dtype.itemsize == compiled["size"], where
        assert dtype.kind == ("i" if "SIGNED" in compiled["encoding"] else "u"), where
        return 1


@pytest.mark.parametrize(("name", "struct"), KEYS.items())
def test_keys(objects: Objects, name: str, struct: str) -> None:
    btf = Btf(objects.maps[name].fd)
    assert btf.same(objects.maps[name].key, btf.struct(struct), struct) >= 2


@pytest.mark.parametrize(("name", "struct"), LEAVES.items())
def test_values(objects: Objects, name: str, struct: str) -> None:
    btf = Btf(objects.maps[name].fd)
    assert btf.same(objects.maps[name].leaf, btf.struct(struct), struct) >= 2


def test_a_wrong_offset_would_be_noticed(objects: Objects) -> None:
    btf = Btf(objects.maps["rows_a"].fd)
    right = objects.maps["rows_a"].leaf
    assert right.names is not None
    assert right.fields is not None
    offsets = [right.fields[name][1] for name in right.names]
    offsets[:2] = offsets[1::-1]
    swapped = np.dtype({
        "names": list(right.names), "formats": [right[name] for name in right.names], "offsets": offsets,
        "itemsize": right.itemsize,
    })  # fmt: skip
    with pytest.raises(AssertionError, match="opened"):
        btf.same(swapped, btf.struct("row"), "row")


def test_every_map_is_known_here(objects: Objects) -> None:
    assert {*LEAVES, *PLAIN} == set(objects.maps)
    for name, kind in PLAIN.items():
        assert objects.maps[name].leaf == kind, name
    assert objects.maps["adoptable"].key == np.uint64  # a socket's cookie
    for name in {*LEAVES, *PLAIN} - {*KEYS, "adoptable"}:
        assert objects.maps[name].key.itemsize == 4, name  # an array's index


def test_the_totals_cover_every_plain_sum_of_a_row(objects: Objects) -> None:
    names = objects.maps["rows_a"].leaf.names
    assert names == (*ROW_FIELDS, "rate", "sent", "received")


def test_the_tests_that_do_without_a_kernel_have_the_same_types(objects: Objects) -> None:
    for ours, theirs in (
        (handmade.ROW, objects.maps["rows_a"].leaf),
        (handmade.KEY, objects.maps["rows_a"].key),
        (handmade.StillKernel.policy, objects.maps["policies"].leaf),
        (handmade.StillKernel.prefix_key, objects.maps["policies"].key),
        (handmade.StillKernel.arm, objects.maps["arms"].leaf),
    ):
        assert ours == theirs


def test_sizes_follow_the_constants(objects: Objects) -> None:
    limits = constants()
    assert objects.maps["policies"].leaf["upto"].shape == (limits["DIMENSIONS"] * limits["ARMS"],)
    assert objects.maps["rtt"].leaf["slots"].shape == (limits["RTT_ROOM"],)
    assert objects.maps["rows_a"].key["arms"].shape == (limits["DIMENSIONS"],)
    sizes = {}
    for name, one in objects.maps.items():
        found = re.search(r"max_entries:\s+(\d+)", Path(f"/proc/self/fdinfo/{one.fd}").read_text())
        assert found is not None
        sizes[name] = int(found[1])
    expected = map_sizes(Config())
    assert sizes == {
        "policies": expected["POLICY_ENTRIES"], "rows_a": expected["ROW_ENTRIES"], "rows_b": expected["ROW_ENTRIES"],
        "arms": limits["DIMENSIONS"] * limits["ARMS"], "control": 1, "rtt": limits["GROUPS"],
        "counters": len(counter_names()), "sends": limits["GROUPS"], "honoured": expected["HONOURED_ENTRIES"],
        "algorithms": limits["ALGORITHMS"], "extensions": limits["EXTENSIONS"] * limits["OUTCOME_ROOM"],
        "adoptable": limits["ADOPT_ENTRIES"],
    }  # fmt: skip


@pytest.mark.parametrize("struct", sorted({*KEYS.values(), *LEAVES.values()}))
def test_the_header_names_the_same_fields(objects: Objects, struct: str) -> None:
    """The header is the one source: its text, not only what the compiler made of it."""
    text = re.sub(r"/\*.*?\*/", "", (FOLDER / "structs.h").read_text(), flags=re.DOTALL)
    body = re.search(rf"struct {struct} {{(.*?)}};", text, re.DOTALL)
    assert body is not None
    declared = re.findall(r"(\w+)(?:\[[^\]]*\])?;", body[1])
    types = [one for entry in objects.maps.values() for one in (entry.key, entry.leaf)]
    assert any(one.names is not None and list(one.names) == declared for one in types)
