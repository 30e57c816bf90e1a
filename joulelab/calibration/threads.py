"""How many threads linear algebra uses."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from threadpoolctl import threadpool_limits


def one_thread() -> AbstractContextManager[Any]:
    """BLAS on one thread: matrices of some hundred columns cost it more to share out than to work on."""
    limits: AbstractContextManager[Any] = threadpool_limits(1, user_api="blas")
    return limits
