"""The C sources as one text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.bpf_source import FOLDER, constants, counter_names, expand


def test_constants_are_the_plain_numbers_of_consts_h() -> None:
    found = constants()
    assert found["ARMS"] == 8
    assert found["ARM_NONE"] == 255
    assert found["FLUSH_INTERVAL_NS"] == 250_000_000
    assert (found["TREATMENT_OBSERVED"], found["TREATMENT_HOLDOUT"], found["TREATMENT_APPLIED"]) == (0, 1, 2)
    # defined by other macros
    assert not {"MAPPED_WORD", "TRANSFER_MIN_SEGMENTS"} & set(found)


def test_what_the_kernel_side_takes_for_granted() -> None:
    found = constants()
    for name in ("ARMS", "RTT_ROOM"):
        assert found[name] & (found[name] - 1) == 0, f"{name} is used as a mask"
    assert found["GROUPS"] <= 256  # a byte
    assert found["ARMS"] <= found["ARM_GRANTED"] < found["ARM_NONE"]
    assert found["RTT_SLOTS"] <= found["RTT_ROOM"]


def test_counters_are_in_the_order_of_the_enum() -> None:
    names = counter_names()
    text = (FOLDER / "consts.h").read_text()
    body = text[text.index("enum counter {") : text.index("};", text.index("enum counter {"))]
    members = [line.strip().rstrip(",") for line in body.splitlines()[1:] if line.strip()]
    assert members == [*(f"COUNTER_{name.upper()}" for name in names), "COUNTERS"]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", counter_names())
def test_every_counter_is_counted_somewhere(name: str) -> None:
    used = [
        path.name for path in FOLDER.glob("*.[ch]")
        if path.name != "consts.h" and re.search(rf"\bCOUNTER_{name.upper()}\b", path.read_text())
    ]  # fmt: skip
    assert used


def test_includes_are_put_in_place_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text('one\n#include "a.h"\nthree\n#include <linux/bpf.h>\n')
    (tmp_path / "a.h").write_text('first\n  #include "b.h"\nlast\n')
    (tmp_path / "b.h").write_text("inner\n")
    assert expand("main.c", folder=tmp_path).splitlines() == [
        '#line 1 "main.c"', "one",
        '#line 1 "a.h"', "first", '#line 1 "b.h"', "inner", '#line 3 "a.h"', "last",
        '#line 3 "main.c"', "three", "#include <linux/bpf.h>",
    ]  # fmt: skip


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text('#include "gone.h"\n')
    with pytest.raises(FileNotFoundError, match="gone"):
        expand("main.c", folder=tmp_path)


def test_the_whole_text_has_every_file_once_and_each_line_where_it_says() -> None:
    place, number = "", 0
    seen: dict[str, int] = {}
    for line in expand("tcptuned.c").splitlines():
        if match := re.fullmatch(r'#line (\d+) "(.*)"', line):
            place, number = match[2], int(match[1])
            seen[place] = seen.get(place, 0) + (number == 1)
            continue
        assert line == (FOLDER / place).read_text().splitlines()[number - 1]
        number += 1
    assert set(seen) == {path.name for path in FOLDER.glob("*.[ch]") if path.name != "bench_options.c"}
    assert set(seen.values()) == {1}
    assert '#include "' not in expand("tcptuned.c")
