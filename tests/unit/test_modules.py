"""Algorithms that are modules: the kernel is asked for what it lacks, and a refusal harms nobody."""

from __future__ import annotations

import logging

import pytest

from agent import features, modules


def test_what_the_kernel_does_not_have_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    before = features.algorithms()
    with caplog.at_level(logging.INFO):
        modules.load(["no_such_thing", *before])
    assert features.algorithms() == before
    assert [record.getMessage() for record in caplog.records] == [
        "congestion control no_such_thing is left out: No such file or directory"
    ]
