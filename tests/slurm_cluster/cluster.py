"""A real SLURM on one machine: munged, slurmctld, and nodes with host names and addresses of their own.

Each slurmd lives in a network, host-name and mount namespace that ends with it. All daemons are children of this process
and die with it; leaving the `with` block ends, by their ids, them and every job process. Needs root and Debian's packages
slurm-wlm, munge, iproute2 and util-linux.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lft.core.parent import die_with

UP_SECONDS = 30.0
POLL_SECONDS = 0.1
ADDRESSES = range(64, 255)
"""Third and second numbers of the network 10.x.y.0/24 are drawn from these."""
PROGRAMS = ("munged", "slurmctld", "slurmd", "ip", "unshare")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What sites decide differently."""

    nodes: int = 3
    user_signal: bool = False
    """preempt_send_user_signal: a preempted job gets its own --signal in place of SIGTERM."""
    requeue_exit: bool = False
    """RequeueExit=75: SLURM itself requeues a batch script that exits so."""
    grace_seconds: int = 20
    """GraceTime: how long a preempted job may take to leave."""


class Cluster:
    """A site under way; `folder` holds its configuration, state and logs."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.folder, self.kind = folder, kind
        self.prefix = f"lf{secrets.token_hex(2)}"
        self.network = f"10.{secrets.choice(ADDRESSES)}.{secrets.choice(ADDRESSES)}"
        self.conf = folder / "slurm.conf"
        self._slurmds: dict[int, subprocess.Popen[bytes]] = {}
        self._undo = ExitStack()

    def __enter__(self) -> "Cluster":
        missing = [name for name in PROGRAMS if not _which(name)]
        assert not missing, f"{', '.join(missing)} missing: apt-get install slurm-wlm munge iproute2 util-linux"
        assert os.geteuid() == 0, "a SLURM with nodes of its own needs root, for their namespaces"
        with ExitStack() as undo_if_it_fails:
            self._undo = undo_if_it_fails
            self._write_files()
            self._start_munge()
            self._make_bridge()
            self._daemon("slurmctld", ["slurmctld", "-D", "-f", str(self.conf)])
            for number in range(1, self.kind.nodes + 1):
                self.start_node(number)
            self._undo.callback(self._cancel_all)
            wait_until(
                lambda: (
                    len(self.ask("sinfo", "-h", "-t", "idle", "-p", "low", "-N", "-o", "%N").split()) == self.kind.nodes
                ),
                UP_SECONDS,
            )
            self._undo = undo_if_it_fails.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    @property
    def variables(self) -> dict[str, str]:
        """What a client of this site needs in its environment."""
        return {"SLURM_CONF": str(self.conf)}

    def node(self, number: int) -> str:
        """The host name of a node, counted from 1."""
        return f"{self.prefix}n{number}"

    def ask(self, *argv: str) -> str:
        """The output of one of SLURM's programs."""
        done = subprocess.run(argv, env=os.environ | self.variables, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def state(self, job_id: str) -> str:
        """A job's state, as `scontrol show job` has it."""
        words = self.ask("scontrol", "show", "job", "-o", job_id).split()
        return next((word.partition("=")[2] for word in words if word.startswith("JobState=")), "")

    def processes(self, number: int, containing: str = "") -> list[int]:
        """The processes of a node whose command line contains a text, slurmd's own among them."""
        slurmd = self._slurmds[number].pid
        own = _network_of(slurmd)
        found = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return [pid for pid in found if own and _network_of(pid) == own and containing in _command(pid)]

    def kill_node(self, number: int) -> None:
        """End everything on a node at once, as a power cut would, and its slurmd last."""
        slurmd = self._slurmds[number]
        pids = self.processes(number)
        for pid in [each for each in pids if each != slurmd.pid] + [slurmd.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        slurmd.wait()

    def cut(self, number: int, other: int, verb: str = "add") -> None:
        """Let no packet of a node go to another one; with the verb del, let them through again."""
        inside = ["nsenter", f"--net=/proc/{self._slurmds[number].pid}/ns/net"]
        route = ["ip", "route", verb, "unreachable", f"{self.network}.{10 + other}/32"]
        subprocess.run([*inside, *route], check=True)

    def start_node(self, number: int) -> None:
        """Give a node its namespaces and its address, then start its slurmd there."""
        name, inside = self.node(number), f"{self.prefix}i{number}"
        ready = (
            f"hostname {name} && mount --bind '{self.folder}/hosts' /etc/hosts && read -r _ && ip link set {inside} name eth0"
            f" && ip addr add {self.network}.{10 + number}/24 dev eth0 && ip link set eth0 up && ip link set lo up"
            f" && exec slurmd -D -f '{self.conf}'"
        )
        argv = ["unshare", "--net", "--uts", "--mount", "--propagation", "private", "sh", "-c", ready]
        slurmd = self._daemon(f"slurmd-{number}", argv, stdin=subprocess.PIPE, end=partial(self._end_node, number))
        self._slurmds[number] = slurmd
        host = _network_of(os.getpid())
        wait_until(lambda: _network_of(slurmd.pid) not in ("", host))
        outside = f"{self.prefix}v{number}"
        _ip(f"link add {outside} type veth peer name {inside} netns {slurmd.pid}")
        _ip(f"link set {outside} master {self.prefix} up")
        assert slurmd.stdin is not None
        slurmd.stdin.write(b"\n")
        slurmd.stdin.close()

    def _end_node(self, number: int) -> None:
        if self._slurmds[number].poll() is None:
            self.kill_node(number)

    def _cancel_all(self) -> None:
        """End what waits and what runs; what is completing ends with its node."""
        asked = ("squeue", "-h", "-t", "pending,running,suspended", "-o", "%A")
        if jobs := self.ask(*asked).split():
            self.ask("scancel", "--full", *jobs)
        wait_until(lambda: not self.ask(*asked))

    def _daemon(
        self,
        name: str,
        argv: list[str],
        *,
        stdin: int = subprocess.DEVNULL,
        end: Callable[[], None] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a daemon in the foreground, as a child that dies with this process."""
        log = (self.folder / f"{name}.log").open("ab")
        parent = os.getpid()
        process = subprocess.Popen(argv, stdin=stdin, stdout=log, stderr=log, preexec_fn=lambda: die_with(parent))
        log.close()
        self._undo.callback(end or partial(_end, process))
        return process

    def _start_munge(self) -> None:
        """A daemon and a key of our own: the machine's are not touched."""
        folder = self.folder / "munge"
        folder.mkdir(mode=0o755)
        (folder / "key").write_bytes(secrets.token_bytes(128))
        (folder / "key").chmod(0o400)
        options = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        paths = [f"--{option}={folder / name}" for option, name in options.items()]
        self._daemon("munged", ["munged", "--foreground", "--force", *paths])
        wait_until((folder / "socket").exists)

    def _make_bridge(self) -> None:
        _ip(f"link add {self.prefix} type bridge")
        self._undo.callback(_ip, f"link del {self.prefix}")
        _ip(f"addr add {self.network}.1/24 dev {self.prefix}")
        _ip(f"link set {self.prefix} up")

    def _write_files(self) -> None:
        names = range(1, self.kind.nodes + 1)
        (self.folder / "state").mkdir(parents=True)
        for number in names:
            (self.folder / self.node(number)).mkdir()
        hosts = "".join(f"{self.network}.{10 + number} {self.node(number)}\n" for number in names)
        (self.folder / "hosts").write_text(Path("/etc/hosts").read_text(encoding="utf-8") + hosts)
        (self.folder / "gres.conf").write_text("")
        port = _free_port()
        chosen = ["SlurmctldParameters=preempt_send_user_signal"] if self.kind.user_signal else []
        chosen += ["RequeueExit=75"] if self.kind.requeue_exit else []
        self.conf.write_text("\n".join([*self._settings(port), *chosen]) + "\n")

    def _settings(self, port: int) -> Iterator[str]:
        nodes = f"{self.prefix}n[1-{self.kind.nodes}]"
        folder = self.folder
        yield from (
            f"ClusterName={self.prefix}",
            f"SlurmctldHost={socket.gethostname().split('.')[0]}({self.network}.1)",
            f"SlurmctldPort={port}",
            f"SlurmdPort={port + 1}",
            "AuthType=auth/munge",
            # a requeued job waits cred_expire + 1 s, by default 121
            f"AuthInfo=socket={folder}/munge/socket,cred_expire=5",
            "SlurmUser=root",
            "SlurmdParameters=config_overrides",  # nodes have the cores written below, whatever this machine has
            f"StateSaveLocation={folder}/state",
            f"SlurmdSpoolDir={folder}/%n",
            f"SlurmctldPidFile={folder}/slurmctld.pid",
            f"SlurmdPidFile={folder}/%n.pid",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core",
            "ReturnToService=2",
            "KillWait=5",
            "SlurmdTimeout=30",
            "MinJobAge=3600",
            "SchedulerParameters=sched_interval=1,bf_interval=2,sched_min_interval=100000",
            "PreemptType=preempt/partition_prio",
            "PreemptMode=REQUEUE",
            "AccountingStorageType=accounting_storage/none",
            "MpiDefault=none",
            f"NodeName={nodes} NodeAddr={self.network}.[11-{10 + self.kind.nodes}] CPUs=4 RealMemory=4000 State=UNKNOWN",
            f"PartitionName=low Nodes={nodes} Default=YES MaxTime=60 PriorityTier=1 GraceTime={self.kind.grace_seconds}",
            f"PartitionName=high Nodes={nodes} MaxTime=60 PriorityTier=10 PreemptMode=OFF",
        )


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Until it holds; a deadline that is missed is a failure."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain"
        time.sleep(POLL_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


def _which(name: str) -> bool:
    return any(os.access(f"{folder}/{name}", os.X_OK) for folder in ("/usr/sbin", "/sbin", "/usr/bin", "/bin"))


def _network_of(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _free_port() -> int:
    """One of two free in a row, below those the system gives away by itself."""
    while True:
        port = 10000 + secrets.randbelow(20000)
        with suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind(("", port))
            second.bind(("", port + 1))
            return port


if __name__ == "__main__":  # for people: python -m tests.slurm_cluster.cluster FOLDER; ends with its input
    with Cluster(Path(sys.argv[1]).absolute(), Kind()) as cluster:
        sys.stderr.write(f"export SLURM_CONF={cluster.conf}\n")
        sys.stdin.read()
