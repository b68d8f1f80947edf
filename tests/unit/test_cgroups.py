"""Which cgroups are attached to: each connection is to be seen once."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import cgroups
from agent.errors import UsageError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hierarchy with a, a/inside and b."""
    for folder in (tmp_path, tmp_path / "a", tmp_path / "a" / "inside", tmp_path / "b"):
        folder.mkdir(exist_ok=True)
        for name in ("cgroup.procs", "cgroup.controllers"):
            (folder / name).touch()
    monkeypatch.setattr(cgroups, "mount_point", lambda: tmp_path)
    return tmp_path


def test_cgroups_beside_each_other_are_found(tree: Path) -> None:
    assert cgroups.resolve(["a/inside", str(tree / "b")]) == [tree / "a" / "inside", tree / "b"]


@pytest.mark.parametrize("names", [["auto", "a"], ["a/inside", "a"], ["a", "a/"], ["a", "b", "a"], ["auto", "TREE"]])
def test_cgroups_that_overlap_are_refused(tree: Path, names: list[str]) -> None:
    with pytest.raises(UsageError, match=r"attach\.cgroups: .* overlap; name the one that holds the other"):
        cgroups.resolve(name.replace("TREE", str(tree)) for name in names)
