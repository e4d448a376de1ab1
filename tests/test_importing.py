import gc
import weakref
from collections.abc import Iterator

import pytest

from thaw.importing import kept_for_good


class Knot:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_what_was_made_inside_is_left_alone_and_what_came_later_is_collected() -> None:
    with kept_for_good():
        assert not gc.isenabled()
        kept = weakref.ref(Knot())
    assert gc.isenabled()
    collected = weakref.ref(Knot())
    gc.collect()
    assert kept() is not None
    assert collected() is None


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with kept_for_good():
        pass
    assert not gc.isenabled()
