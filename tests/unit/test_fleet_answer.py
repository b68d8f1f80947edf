"""Whatever Prometheus answers: sums of arms that this host has, finite and of now, or a refusal with a reason."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import CONFIG
from hypothesis import example, given
from hypothesis import strategies as st

from agent.config import Config
from agent.dimensions import dimensions
from agent.errors import FleetError
from agent.fleet_answer import MOST_AGE, RULES, Totals, arrays, expression, keys, parse
from controllers.fleet import Total, of_fleet

NOW = 1_800_000_000.0
GROUPS = CONFIG.groups
DIMENSIONS = dimensions(Config(), algorithms=("cubic", "bbr"), host_congestion="cubic")
WANTED = keys(GROUPS, DIMENSIONS, "cubic")
BBR = ("default", "congestion", "bbr", "cubic")
SUMS = {Total.HOSTS: 3, Total.PRECISION: 30, Total.GAIN: 15, Total.GAIN_SQUARED: 8, Total.SAFE: 7, Total.UNSAFE: 0}


def sample(total: Total, value: str | None = None, *, time: Any = NOW, **labels: str) -> dict[str, Any]:
    name = next(name for name, each in RULES.items() if each == total)
    metric = dict(zip(("group", "dimension", "arm", "against"), BBR, strict=True))
    text = str(SUMS[total]) if value is None else value
    return {"metric": {"__name__": name, **metric, **labels}, "value": [time, text]}


def answer(samples: list[Any], **changes: Any) -> bytes:
    data = {"resultType": "vector", "result": samples}
    return json.dumps({"status": "success", "data": data, **changes}).encode()


GOOD = [sample(total) for total in Total]


def test_what_is_asked_names_the_groups_and_the_rules() -> None:
    text = expression(("cdn", "default"))
    assert 'group=~"cdn|default"' in text
    assert all(name in text for name in RULES)
    assert "[300s]" in text


def test_prometheus_adds_up_what_is_asked_and_leaves_out_what_is_old(tmp_path: Path) -> None:
    """Two servers' sums in a third one; the second of them stops after four minutes."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing; Debian's package prometheus has it")
    name = next(iter(RULES))
    pairs = zip(("group", "dimension", "arm", "against"), BBR, strict=True)
    labels = ", ".join(f'{key}="{value}"' for key, value in pairs)
    series = {
        f'{name}{{shard="a", {labels}}}': "1x20",
        f'{name}{{shard="b", {labels}}}': "2x4 _x16",
        f'{name}{{shard="a", {labels.replace("default", "other")}}}': "4x20",
        f'{name}_other{{shard="a", {labels}}}': "4x20",
    }
    together = f"{name}{{{labels}}}"
    asked = [
        {"expr": expression(GROUPS), "eval_time": when, "exp_samples": [{"labels": together, "value": sums}]}
        for when, sums in (("4m", 3), ("8m", 3), ("12m", 1))
    ]
    inputs = [{"series": each, "values": values} for each, values in series.items()]
    test = {"interval": "1m", "input_series": inputs, "promql_expr_test": asked}
    (tmp_path / "test.yml").write_text(json.dumps({"evaluation_interval": "1m", "tests": [test]}), encoding="utf-8")
    command = ["promtool", "test", "rules", "test.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_good_answer() -> None:
    totals = parse(answer(GOOD), WANTED, now=NOW)
    assert totals == ((BBR, (3, 30, 15, 8, 7, 0)),)
    initial_window, congestion, ack = arrays(totals, GROUPS, DIMENSIONS, "cubic")
    assert initial_window is None
    assert ack is None
    assert congestion is not None
    assert congestion.shape == (len(GROUPS), 4, len(Total))
    assert congestion[GROUPS.index("default"), 1].tolist() == [3, 30, 15, 8, 7, 0]
    assert congestion.sum() == 63
    assert parse(answer([]), WANTED, now=NOW) == ()
    # After a reload that took the group away nothing is left of it.
    assert arrays(totals, ("other",), DIMENSIONS, "cubic") == [None] * 3


@pytest.mark.parametrize(
    "labels",
    [
        {"arm": "iw40"}, {"arm": "default"}, {"arm": "vegas"}, {"dimension": "ack"}, {"dimension": ""},
        {"group": "nobody"}, {"against": "reno"}, {"__name__": "up"},
    ],
)  # fmt: skip
def test_what_this_host_does_not_have_is_left_out(labels: dict[str, str]) -> None:
    assert parse(answer([sample(total, **labels) for total in Total]), WANTED, now=NOW) == ()


@pytest.mark.parametrize("text", ["NaN", "+Inf", "-Inf", "1e999"])
@pytest.mark.parametrize("total", Total)
def test_one_number_that_is_none_takes_the_arm_out(total: Total, text: str) -> None:
    others = [sample(each, text if each == total else None) for each in Total]
    delay = [sample(each, dimension="ack", arm="delay", against="default") for each in Total]
    [(key, _)] = parse(answer(others + delay), WANTED, now=NOW)
    assert key == ("default", "ack", "delay", "default")
    assert parse(answer([each for each in GOOD if each != sample(total)]), WANTED, now=NOW) == ()


@pytest.mark.parametrize("age", [MOST_AGE + 1, -MOST_AGE - 1, 1e9, -1e300])
def test_an_answer_of_another_time_is_refused(age: float) -> None:
    assert parse(answer([sample(total, time=NOW - math.copysign(MOST_AGE, age)) for total in Total]), WANTED, now=NOW)
    with pytest.raises(FleetError) as caught:
        parse(answer([*GOOD, sample(Total.SAFE, time=NOW - age, arm="vegas")]), WANTED, now=NOW)
    assert caught.value.reason == "stale"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"1", b"\xff\xfe", answer(GOOD)[:-1], answer(GOOD) + b"x", b"[" * 100_000,
        b'{"a":' * 50_000, b"1" * 10_000, answer(GOOD, status="error"), answer(GOOD, data=None), answer(GOOD, data=[]),
        answer(GOOD, data={"resultType": "matrix", "result": []}), answer(GOOD, data={"resultType": "vector"}),
        answer(GOOD, data={"resultType": "vector", "result": {}}), answer([None]), answer([[]]), answer([{}]),
        answer([{"metric": {}, "value": [NOW, 1]}]), answer([{"metric": {}, "value": [NOW]}]),
        answer([{"metric": {}, "value": [str(NOW), "1"]}]), answer([{"metric": {}, "value": [True, "1"]}]),
        answer([{"metric": {}, "value": [NOW, "1", "2"]}]), answer([{"metric": {}, "value": {"0": NOW, "1": "1"}}]),
        answer([{"metric": [], "value": [NOW, "1"]}]), answer([{"metric": {"arm": 1}, "value": [NOW, "1"]}]),
        answer([{"metric": {"arm": ["bbr"]}, "value": [NOW, "1"]}]), answer([{"value": [NOW, "1"]}]),
        answer([sample(Total.GAIN, "")]), answer([sample(Total.GAIN, "one")]), answer([sample(Total.GAIN, "0x1")]),
        answer([sample(Total.GAIN, "1" * 65)]), answer([*GOOD, GOOD[2]]),
        answer([sample(Total.GAIN, time=10**400)]), b'{"status":"success","data":NaN}',
    ],
)  # fmt: skip
def test_other_shapes_are_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(FleetError) as caught:
        parse(body, WANTED, now=NOW)
    assert caught.value.reason == "malformed"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([*RULES, *BBR, "metric", "value", "success", "vector", "NaN"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["status", "data", "resultType", "result", "metric", "value", "arm"]), inner, max_size=4
    ),
    max_leaves=20,
)  # fmt: skip
NUMBERS = (
    st.floats().map(str) | st.sampled_from(["NaN", "1e308", "-0", "1_0", " 1", "5e-324"]) | st.text(max_size=6)
)  # fmt: skip
SAMPLES = st.builds(
    lambda total, text, time, change: {**sample(total, text, time=time), **change},
    st.sampled_from(Total), NUMBERS, st.sampled_from([NOW, NOW + 1, int(NOW)]) | st.floats(),
    st.dictionaries(st.sampled_from(["metric", "value", "more"]), JSON, max_size=1),
)  # fmt: skip


def check(body: bytes) -> Totals:
    """Parses; what comes out can be taught, whatever it is."""
    try:
        totals = parse(body, WANTED, now=NOW)
    except FleetError as error:
        assert error.reason in ("malformed", "stale")
        return ()
    for key, sums in totals:
        assert key in WANTED
        assert all(map(math.isfinite, sums))
    for found in arrays(totals, GROUPS, DIMENSIONS, "cubic"):
        if found is not None:
            assert np.isfinite(of_fleet(found).gain).all()
    return totals


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    check(body)


@given(JSON)
def test_any_json(value: Any) -> None:
    check(json.dumps(value).encode())


@given(st.lists(SAMPLES, max_size=8))
@example([sample(total, "1e308") for total in Total])
def test_any_samples(samples: list[Any]) -> None:
    check(answer(samples))


@given(st.data())
def test_a_good_answer_that_is_damaged_anywhere(data: st.DataObject) -> None:
    body = bytearray(answer(GOOD))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(body[: data.draw(st.integers(0, len(body)))]))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=6, max_size=6))
def test_any_finite_sums_come_through(values: list[float]) -> None:
    found = check(answer([sample(total, repr(value)) for total, value in zip(Total, values, strict=True)]))
    assert found == ((BBR, tuple(values)),)
