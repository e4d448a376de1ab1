"""Control groups of Linux, by which Docker, Kubernetes and SLURM limit what a process may take."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def control_groups(controller: str, root: Path) -> Iterator[tuple[Path, int]]:
    """Folder and version, 1 or 2, of each group whose limits hold for this process: its own and those above it.

    Args:
        controller: What is limited: memory or cpu.
        root: Where `proc` and `sys` are.
    """
    with suppress(OSError):  # no control groups on this system
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers == "":
                mount, version = root / "sys/fs/cgroup", 2
            elif controller in controllers.split(","):
                mount, version = root / "sys/fs/cgroup" / controller, 1
            else:
                continue
            group = mount / name.lstrip("/")  # seen from outside a container, in which only the mount itself is there
            yield from ((folder, version) for folder in (group, *group.parents) if folder.is_relative_to(mount))
