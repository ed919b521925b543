"""One thread for the models of this folder, which are too small for more."""

from collections.abc import Iterator

import pytest
from helpers import on_one_thread


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    yield from on_one_thread()
