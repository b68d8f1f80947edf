"""The DaemonSet's container without its runtime: the manifest's configuration, mounts, capabilities and probes on this
kernel, in a root of its own that is read-only."""

from __future__ import annotations

import http.client
import signal
import socket
import ssl
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from running import REPOSITORY, attached, require_root, until

from agent.lab.enter import in_namespace
from agent.lab.lab import Lab
from agent.lab.spec import PathSpec

KUBERNETES = REPOSITORY / "config" / "kubernetes"

# Arguments: the root, folders to show in it, "--", mounts as FROM TO ro|rw, "--", the command. As a runtime does it:
# some devices, /sys and /proc/sys read-only, and at the end the root.
CONTAINER = r"""
set -euo pipefail
root=$1; shift
mount -t tmpfs tmpfs "$root"
show() {
    if [[ -d $1 ]]; then mkdir -p "$root$2"; else mkdir -p "$root${2%/*}"; touch "$root$2"; fi
    mount --bind "$1" "$root$2"
    mount -o "remount,bind,$3" "$root$2"
}
ln -s usr/bin usr/sbin usr/lib usr/lib64 "$root"
show /usr /usr ro
show /etc/ld.so.cache /etc/ld.so.cache ro
for folder in "$@"; do
    shift
    [[ $folder == -- ]] && break
    show "$folder" "$folder" ro
done
mkdir "$root/proc" "$root/sys"
mount --rbind /proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
for device in null zero urandom; do show "/dev/$device" "/dev/$device" rw; done
while [[ $1 != -- ]]; do
    show "$1" "$2" "$3"
    shift 3
done
shift
mount -o remount,ro "$root"
exec chroot "$root" "$@"
"""


class Container:
    """The agent in it; `process` is the agent itself."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        documents = list(yaml.safe_load_all((KUBERNETES / "tcptuned.yaml").read_text()))
        kinds = {one["kind"]: one for one in documents}
        pod = kinds["DaemonSet"]["spec"]["template"]["spec"]
        (self.spec,) = pod["containers"]
        made = subprocess.run([KUBERNETES / "secrets", "2"], capture_output=True, text=True, check=True)
        self.secrets = {one["metadata"]["name"]: one["data"] for one in yaml.safe_load_all(made.stdout)}
        self.folder, self.root, self._lab = folder, folder / "root", lab
        sources: dict[str, Path] = {}
        for volume in pod["volumes"]:
            name = volume["name"]
            source = sources[name] = folder / name
            if "hostPath" in volume and volume["hostPath"]["path"] == "/sys/fs/cgroup":
                sources[name] = lab.server_cgroup  # nobody else's connections
                continue
            source.mkdir(mode=0o755)
            if "configMap" in volume:
                for key, text in kinds["ConfigMap"]["data"].items():
                    (source / key).write_text(text)
            elif "secret" in volume:
                for key, data in self.secrets[volume["secret"]["secretName"]].items():
                    (source / key).write_bytes(b64decode(data))
                    (source / key).chmod(volume["secret"]["defaultMode"])
        mounts = [
            word
            for one in self.spec["volumeMounts"]
            for word in (str(sources[one["name"]]), one["mountPath"], "ro" if one.get("readOnly") else "rw")
        ]
        context = self.spec["securityContext"]
        sets = ",".join(["-all", *(f"+{name.lower()}" for name in context["capabilities"]["add"])])
        # Of a user 0 the kernel makes what is in the bounding set permitted: as under a runtime.
        limited = ["setpriv", f"--bounding-set={sets}", f"--inh-caps={sets}"]
        if not context["allowPrivilegeEscalation"]:
            limited.append("--no-new-privs")
        environment = ["env", "-i", f"PYTHONPATH={REPOSITORY}", "PATH=/usr/sbin:/usr/bin"]
        agent = [sys.executable, "-m", "agent", *self.spec["args"]]
        shown = {str(REPOSITORY), str(Path(sys.prefix).resolve()), str(Path(sys.executable).parents[1])}
        self.root.mkdir()
        self._log = (folder / "agent.log").open("w+b")
        self.process = lab.run_in(
            "server",
            ["unshare", "--mount", "--propagation", "private", "bash", "-c", CONTAINER, "container", str(self.root),
             *sorted(shown), "--", *mounts, "--", *limited, *environment, *agent],
            stderr=self._log,
        )  # fmt: skip

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(10)
        self._log.close()

    def probe(self, name: str) -> bool:
        """Runs one of the manifest's probes, in the container, with its limit of time."""
        command = ["nsenter", f"--target={self.process.pid}", "--mount", "--root", *self.spec[name]["exec"]["command"]]
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=self.spec[name].get("timeoutSeconds", 1), check=False
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def get(self, target: str, secret: str | None) -> bytes:
        """As the PodMonitor says, from the node's own network; with the certificate of a Secret or without."""
        context = ssl.create_default_context(cadata=b64decode(self.secrets["tcptuned-client"]["ca.crt"]).decode())
        if secret is not None:
            for key in ("tls.crt", "tls.key"):
                (self.folder / key).write_bytes(b64decode(self.secrets[secret][key]))
            context.load_cert_chain(self.folder / "tls.crt", self.folder / "tls.key")

        def fetch() -> bytes:
            address = "127.0.0.1", self.spec["ports"][0]["containerPort"]
            with (
                socket.create_connection(address, timeout=10) as plain,
                context.wrap_socket(plain, server_hostname="tcptuned") as secured,
            ):
                connection = http.client.HTTPConnection("tcptuned")
                connection.sock = secured
                connection.request("GET", target)
                return connection.getresponse().read()

        return in_namespace(self._lab.server_namespace, fetch)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    require_root()
    with Lab([PathSpec.symmetric("path", rate_mbps=100, delay_ms=5)]) as opened:
        yield opened


@pytest.fixture
def container(lab: Lab, tmp_path: Path) -> Iterator[Container]:
    started = Container(lab, tmp_path)
    try:
        until(lambda: started.process.poll() is not None or started.probe("startupProbe"), 60.0, "it does not start")
        assert started.process.poll() is None, started.log()
        yield started
    finally:
        started.end()


@pytest.mark.long
def test_the_container_tunes_and_answers_who_has_a_certificate(container: Container, lab: Lab) -> None:
    status = Path(f"/proc/{container.process.pid}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines())
    assert {int(facts[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {1 << 12 | 1 << 39}
    with pytest.raises(OSError, match="Read-only file system"):
        Path(f"/proc/{container.process.pid}/root/more").mkdir()
    assert attached(lab.server_cgroup) == ["cgroup_setsockopt", "cgroup_sock_ops"]

    lab.fetch("path", size=2_000, count=11)
    wanted = b'tcptuned_connections_opened_total{group="default",side="passive"} 11.0'
    until(lambda: wanted in container.get("/metrics", "tcptuned-client"), 10.0, "not counted")
    for stranger in (None, "tcptuned-server"):  # a node's own certificate lets nobody read another's pages
        with pytest.raises(OSError):  # which one depends on how far the handshake got
            container.get("/metrics", stranger)
            pytest.fail("admitted")

    assert container.probe("readinessProbe")
    assert container.probe("livenessProbe")
    container.process.terminate()
    assert container.process.wait(10) == 0, container.log()
    saved = container.folder / "state" / "learnt.state"
    assert saved.stat().st_size > 0
    assert "Traceback" not in container.log()
    assert "WARNING" not in container.log()


@pytest.mark.long
def test_a_hung_container_fails_its_probes(container: Container) -> None:
    assert container.probe("livenessProbe")
    container.process.send_signal(signal.SIGSTOP)
    assert not container.probe("livenessProbe")
