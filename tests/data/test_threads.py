import os
import time
from pathlib import Path

import pytest

from thaw.data.threads import in_threads, num_cores

NEW, OLD = "sys/fs/cgroup/pod", "sys/fs/cgroup/cpu/pod"


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("", {}, 64),
        ("0::/pod/job\n", {f"{NEW}/job/cpu.max": "max 100000\n"}, 64),
        ("0::/pod/job\n", {f"{NEW}/job/cpu.max": "200000 100000\n"}, 2),
        ("0::/pod/job\n", {f"{NEW}/job/cpu.max": "max 100000\n", f"{NEW}/cpu.max": "150000 100000\n"}, 2),
        ("4:cpu,cpuacct:/pod\n", {f"{OLD}/cpu.cfs_quota_us": "300000\n", f"{OLD}/cpu.cfs_period_us": "100000\n"}, 3),
        ("4:cpu,cpuacct:/pod\n", {f"{OLD}/cpu.cfs_quota_us": "-1\n", f"{OLD}/cpu.cfs_period_us": "100000\n"}, 64),
    ],
)
def test_a_control_group_limits_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, limits: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    for name, content in {"proc/self/cgroup": groups, **limits}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert num_cores(tmp_path) == expected


def test_results_are_in_order() -> None:
    assert list(in_threads(lambda pause: time.sleep(pause) or pause, [0.02, 0.0, 0.01], 3)) == [0.02, 0.0, 0.01]


def test_an_exception_does_not_wait_for_what_is_still_to_do() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 0:
            raise KeyboardInterrupt
        time.sleep(0.01)
        done.append(number)

    with pytest.raises(KeyboardInterrupt):
        list(in_threads(work, range(1000), 2))
    assert len(done) < 100
