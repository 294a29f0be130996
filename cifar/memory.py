"""Whether an error means that memory ran out."""

import re

TEXT = re.compile(r"out of memory|allocate memory|allocation failed|start new thread")


def ran_out(error: BaseException) -> bool:
    """Whether the CPU or a GPU ran out of memory; torch raises a RuntimeError for both."""
    return isinstance(error, MemoryError) or bool(TEXT.search(str(error)))
