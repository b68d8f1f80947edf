"""The Debian package, built for real."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[2] / "config"


@pytest.mark.long
def test_the_package_is_whole(tmp_path: Path) -> None:
    """Built as a user would, unpacked, and started from where it was unpacked."""
    subprocess.run([CONFIG / "debian" / "build", tmp_path], check=True, timeout=280)
    (package,) = tmp_path.glob("tcptuned_*.deb")
    tree = tmp_path / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    assert (tree / "DEBIAN" / "conffiles").read_text() == "/etc/tcptuned/tcptuned.yaml\n"
    home = tree / "usr" / "lib" / "tcptuned"
    assert str(tmp_path).encode() not in (home / "bin" / "tcptuned").read_bytes()
    for name, folder in (
        ("tcptuned", "bash-completion/completions"), ("_tcptuned", "zsh/vendor-completions"),
        ("tcptuned.fish", "fish/vendor_completions.d"),
    ):  # fmt: skip
        assert "explain" in (tree / "usr" / "share" / folder / name).read_text()
    for page in (CONFIG / "man").iterdir():
        packed = tree / "usr" / "share" / "man" / f"man{page.suffix[1:]}" / f"{page.name}.gz"
        assert gzip.decompress(packed.read_bytes()) == page.read_bytes()
    first = (tree / "etc" / "tcptuned" / "tcptuned.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=/usr/share/tcptuned/tcptuned.schema.json"
    assert (tree / first.partition("=/")[2]).exists()
    done = subprocess.run(
        [home / "bin" / "python3", "-I", home / "bin" / "tcptuned", "check", "--config",
         tree / "etc" / "tcptuned" / "tcptuned.yaml"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
