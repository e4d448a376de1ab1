import time

import pytest

from thaw.data.threads import in_threads


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
