"""Reading rows from disk, and reading ahead."""

import threading

import numpy as np
import pytest

from cifar import files, reading


@pytest.fixture
def array(tmp_path):
    """A memory-mapped .npy file of random rows."""
    rows = np.random.default_rng(0).integers(0, 256, (20, 3, 2, 3), np.uint8)
    np.save(tmp_path / "rows.npy", rows)
    return files.read_array(tmp_path / "rows.npy")


def test_rows_are_those_of_the_index(array):
    """Rows are read in the order of the index, which may repeat rows."""
    index = np.array([19, 0, 7, 7, 3])
    out = np.zeros((5, 3, 2, 3), np.uint8)
    reading.read_rows(array, index, out)
    assert np.array_equal(out, np.asarray(array)[index])


def test_a_file_that_shrinks_is_an_error_and_no_crash(array):
    """Reading past the end of a truncated file is an OSError with its name, not a crash."""
    with open(array.filename, "r+b") as handle:
        handle.truncate(200)
    with pytest.raises(OSError, match="truncated while it was read") as caught:
        reading.read_rows(array, np.array([19]), np.zeros((1, 3, 2, 3), np.uint8))
    assert caught.value.filename == str(array.filename)


def test_values_come_in_the_order_of_the_keys():
    """Values come in the order of the keys, whichever is ready first."""
    gates = [threading.Event() for _ in range(9)]

    def read(key):
        if key % 3 == 0:  # waits for the one after it
            gates[key + 1].wait(10)
        gates[key].set()
        return key

    assert list(reading.ahead(read, range(9))) == list(range(9))


def test_only_a_few_keys_are_read_ahead():
    """While one value is in use, at most AHEAD others are being read or waiting."""
    begun = []
    values = reading.ahead(begun.append, range(100))
    for used in range(1, 20):
        next(values)
        assert len(begun) <= used + reading.AHEAD
    values.close()
    assert len(begun) <= 19 + reading.AHEAD


def test_an_error_stands_in_place_of_its_value():
    """An error is raised in place of its value, after the values before it; all threads end."""

    def read(key):
        return 1 // (3 - key)

    before = threading.active_count()
    values = reading.ahead(read, range(10))
    assert [next(values) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(values)
    assert threading.active_count() == before


def test_the_threads_end_with_the_iterator():
    """The threads end when the iterator is closed, also in the middle."""
    before = threading.active_count()
    values = reading.ahead(str, range(10))
    assert next(values) == "0"
    assert threading.active_count() > before
    values.close()
    assert threading.active_count() == before
