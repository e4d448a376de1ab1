"""What docs/scale.md says of several nodes and of SLURM, on two nodes that are network namespaces of one machine.

    python benchmarks/cluster.py -- dataset=hymenoptera backbone=squeezenet1_0 backbone.weights=FILE

The nodes have their own names and addresses and share the disk. A SLURM of two nodes, with its accounting, which
submitit asks, is set up and taken down again; nothing of it is heard outside the namespaces. Needs Linux, root, and of
Debian's packages iproute2, util-linux, slurm-wlm, slurmdbd, munge and mariadb-server, none of which has to be running.

Dropout is off, and numbers have 64 bits: what differs from one process is the order of sums.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distributed import WITHOUT_DROPOUT, largest_difference

from thaw.run import Run

ADDRESSES = {"node0": "10.99.0.1", "node1": "10.99.0.2"}
SLURM_CONF = """\
ClusterName=thaw
SlurmctldHost=node0
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=node0
PlugStackConfig=/dev/null
NodeName=node[0-1] CPUs=8 State=UNKNOWN
PartitionName=cpu Nodes=node[0-1] Default=YES State=UP
"""
SLURMDBD_CONF = """\
AuthType=auth/munge
DbdHost=node0
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""
DATABASE = """\
create database if not exists slurm;
create user if not exists slurm@'127.0.0.1' identified by 'slurm';
grant all on slurm.* to slurm@'127.0.0.1';
"""
TORCHRUN = "torchrun --nnodes=2 --nproc-per-node={n} --rdzv-backend=c10d --rdzv-endpoint=node0:29500"
SBATCH = """\
#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node={n} --cpus-per-task=1 --time=01:00:00
srun --kill-on-bad-exit=1 python {line}
"""
LAUNCHER = (
    "hydra/launcher=submitit_slurm hydra.launcher.partition=cpu hydra.launcher.cpus_per_task=1 "
    "hydra.launcher.timeout_min=60 hydra.launcher.array_parallelism=2"
)


def main() -> None:
    """Set the nodes up, run each command on them, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("outputs/benchmarks/cluster"), help="of all runs")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("options", nargs="*", help="of train.py, after --")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "nodes").mkdir(parents=True)
    common = [*arguments.options, "strategy=finetune", f"trainer.max_epochs={arguments.epochs}"]
    common += ["trainer.precision=64", "trainer.accelerator=cpu", "figures=false"]
    print(
        "| command | nodes x processes | val accuracy | val loss | largest difference of a weight | s |\n"
        + "|---" * 6
        + "|"
    )
    with cluster(folder / "nodes") as environment:

        def line(name: str, *options: str) -> str:
            return shlex.join([str(WITHOUT_DROPOUT), *common, *options, f"hydra.run.dir={folder / name}"])

        def run(command: str, *nodes: str) -> None:
            """Run a command on each of the nodes at once."""
            started = [
                subprocess.Popen(
                    [*inside(node, folder / "nodes"), "bash", "-c", command],
                    env=environment, stdout=(folder / f"{node}.log").open("a"), stderr=subprocess.STDOUT,
                )
                for node in nodes
            ]  # fmt: skip
            codes = [process.wait() for process in started]
            if any(codes):
                raise SystemExit(f"{command} has failed: see {folder}/*.log")

        def tell(name: str, command: str, size: str, seconds: float) -> None:
            one, other = Run(folder / "one"), Run(folder / name)
            figures, difference = other.summary["last"], ""
            if name != "one":
                difference = f"{largest_difference(one, other):.1e}"
            print(
                f"| {command} | {size} | {figures['acc']:.4f} | {figures['loss']:.6f} | {difference} | {seconds:.0f} |",
                flush=True,
            )

        def measure(name: str, told: str, size: str, command: str, *nodes: str) -> None:
            started = time.monotonic()
            run(command, *nodes)
            tell(name, told, size, time.monotonic() - started)

        measure("one", "`python`", "1 x 1", f"python {line('one')}", "node0")
        for n in (1, 2):
            command = f"{TORCHRUN.format(n=n)} {line(f'torchrun{n}', 'trainer=ddp')}"
            measure(f"torchrun{n}", "`torchrun`", f"2 x {n}", command, *ADDRESSES)
        for n in (1, 2):
            (folder / "job.sh").write_text(SBATCH.format(n=n, line=line(f"srun{n}", "trainer=ddp")))
            command = f"sbatch --wait --output={folder}/srun{n}.log {folder}/job.sh"
            measure(f"srun{n}", "`sbatch`, `srun`", f"2 x {n}", command, "node0")
        command = f"salloc --nodes=2 --ntasks=2 srun python {line('salloc', 'trainer=ddp')}"
        measure("salloc", "`salloc`, `srun`", "2 x 1", command, "node0")
        started = time.monotonic()
        sweep = [f"hydra.sweep.dir={folder / 'sweep'}", "seed=0,1", *shlex.split(LAUNCHER)]
        run(shlex.join(["python", str(WITHOUT_DROPOUT), "-m", *common, *sweep]), "node0")
        tell("sweep/0_seed=0", "`submitit_slurm`, first of two jobs", "1 x 1", time.monotonic() - started)


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Two nodes with SLURM; gives the environment of commands, and ends what it has started."""
    spaces = {node: f"thaw-{node}" for node in ADDRESSES}
    try:
        for space in spaces.values():
            subprocess.run(["ip", "netns", "add", space], check=True)
        pair = ["ip", "link", "add", "eth0", "netns", spaces["node0"], "type", "veth", "peer"]
        subprocess.run([*pair, "name", "eth0", "netns", spaces["node1"]], check=True)
        for node, space in spaces.items():
            subprocess.run(["ip", "-n", space, "addr", "add", f"{ADDRESSES[node]}/24", "dev", "eth0"], check=True)
            for device in ("eth0", "lo"):
                subprocess.run(["ip", "-n", space, "link", "set", device, "up"], check=True)
        yield start_slurm(folder)
    finally:
        for number in ("-TERM", "-KILL"):
            for space in spaces.values():
                listed = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True)
                if pids := listed.stdout.split():  # of this script's namespace: whatever runs there, it has started
                    subprocess.run(["kill", number, *pids], stderr=subprocess.DEVNULL)
            time.sleep(3)
        for space in spaces.values():
            subprocess.run(["ip", "netns", "delete", space])


def inside(node: str, folder: Path) -> list[str]:
    """What to put before a command to run it on a node, which has its own names of hosts and socket of munge."""
    mounts = f"mount --bind {folder}/hosts /etc/hosts && mount --bind {folder}/munge /run/munge"
    script = f'hostname {node} && mkdir -p /run/munge && {mounts} && exec "$@"'
    return ["nsenter", f"--net=/run/netns/thaw-{node}", "unshare", "--uts", "--mount", "sh", "-c", script, "sh"]


def start_slurm(folder: Path) -> dict[str, str]:
    """Start SLURM and what it needs on the nodes; returns the environment of commands."""
    hosts = "".join(f"{address} {node}\n" for node, address in ADDRESSES.items())
    for name, text in {
        "hosts": f"127.0.0.1 localhost\n{hosts}",
        "slurm.conf": SLURM_CONF.format(folder=folder),
        "slurmdbd.conf": SLURMDBD_CONF.format(folder=folder),
        "database.sql": DATABASE,
    }.items():
        (folder / name).write_text(text)
    (folder / "slurmdbd.conf").chmod(0o600)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    for name in ("munge", "state"):
        (folder / name).mkdir()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environment |= {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": path, "OMP_NUM_THREADS": "1"}

    def start(node: str, *command: str) -> None:
        log = (folder / f"{command[0]}.{node}.log").open("w")
        whole = [*inside(node, folder), *command]
        subprocess.Popen(whole, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def wait_for(command: str, pattern: str) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            whole = [*inside("node0", folder), *shlex.split(command)]
            done = subprocess.run(whole, env=environment, capture_output=True, text=True)
            if re.search(pattern, done.stdout):
                return
            time.sleep(1)
        raise SystemExit(f"{command}: {done.stdout}{done.stderr} See {folder}/*.log")

    database = [f"--datadir={folder}/database", "--user=root"]
    install = ["mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", *database]
    subprocess.run(install, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = ["mariadbd", "--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve", *database]
    server += [f"--socket={folder}/db.socket", f"--pid-file={folder}/db.pid", f"--init-file={folder}/database.sql"]
    start("node0", *server)
    files = {"key-file": "munge.key", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "munge.seed"}
    options = [f"--{name}={folder / file}" for name, file in files.items()]
    start("node0", "munged", "--foreground", "--force", f"--socket={folder}/munge/munge.socket.2", *options)
    wait_for(f"sh -c 'ls {folder}/munge {folder}'", r"(?s)db\.socket.*munge\.socket")
    start("node0", "slurmdbd", "-D")
    wait_for("sacctmgr -i add cluster thaw", "thaw|exist")
    start("node0", "slurmctld", "-D", "-c")
    for node in ADDRESSES:
        start(node, "slurmd", "-D", "-N", node)
    wait_for("sinfo --noheader --states=idle", r"node\[0-1\]")
    return environment


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the nodes are taken down then, too
    with suppress(KeyboardInterrupt):
        main()
