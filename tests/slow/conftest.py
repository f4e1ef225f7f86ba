"""The virtual machine that slow tests share."""

from collections.abc import Iterator

import pytest
from machine import Machine


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """Give a machine with three empty disks, /dev/vdc to /dev/vde, and one that two paths lead to."""
    with Machine(disks=(512, 512, 512), paths=(128,)) as machine:
        yield machine
