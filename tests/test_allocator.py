import subprocess
import sys

import pytest

MEASURE = """
import resource, torch
from thaw.allocator import keep_freed_memory
kept = {call}
for _ in range(20):
    torch.ones(10_000_000)  # 40 MB
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_freed_memory_is_used_again_instead_of_mapped_afresh() -> None:
    faults = []
    for call in ("keep_freed_memory()", "True"):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE.format(call=call)], capture_output=True, text=True, check=True
        )
        kept, count = done.stdout.split()
        if kept != "True":
            pytest.skip("another C library than glibc")
        faults.append(int(count))
    with_thresholds, without = faults
    assert without - with_thresholds > 40_000
