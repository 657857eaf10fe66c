"""Names in little memory are the same names, and found."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.name_table import NameTable
from datamodules.names import VideoNames

NAMES = st.lists(st.text(max_size=4), max_size=12)


@settings(deadline=None, max_examples=40)
@given(NAMES, st.text(max_size=4))
def test_names_are_kept_and_found(names, other):
    names = list(dict.fromkeys(names))
    table, places = NameTable.of(names)
    assert [table[place] for place in places] == names
    assert sorted(table) == sorted(names)
    assert [table.find(name) for name in names] == places.tolist()
    assert (table.find(other) is not None) == (other in names)
    assert table.repeated() is None
    assert list(NameTable.from_arrays(table.arrays)) == list(table)


@settings(deadline=None, max_examples=40)
@given(st.lists(NAMES, max_size=4), NAMES)
def test_tables_are_joined(several, others):
    several = [list(dict.fromkeys(names)) for names in several]
    tables = [NameTable.of(names)[0] for names in several]
    joined, places = NameTable.merged(tables)
    assert sorted(joined) == sorted({name for names in several for name in names})
    for table, of_table in zip(tables, places, strict=True):
        assert [joined[place] for place in of_table] == list(table)
    asked = NameTable.of(set(others))[0]
    found = [None if place < 0 else joined[place] for place in joined.places_of(asked).tolist()]
    assert found == [name if name in list(joined) else None for name in asked]


def test_a_name_that_is_there_twice_is_seen():
    table, _ = NameTable.of(["a", "b", "c", "b"])
    assert table[table.repeated()] == "b"


def test_names_that_no_text_file_holds():
    """A file of Linux may have any bytes for a name."""
    table, _ = NameTable.of(["a", "\udcff"])
    assert "\udcff" in list(table)
    assert table.find("\udcff") is not None
    assert table.find("\udcfe") is None


@pytest.mark.parametrize("ids", [[], ["flat"], ["et/tacos/s1", "et/queryd/s1", "et/queryd/s2", "s3", "x/s3"]])
def test_many_names_are_found_as_each_is(ids):
    names = VideoNames(ids)
    asked, _ = NameTable.of(["flat", "s1", "s2", "s3", "tacos/s1", "none", "et/queryd/s1"])
    expected = [names.place(name) for name in asked]
    assert names.places(asked).tolist() == [-1 if place is None else place for place in expected]


def test_a_table_is_a_few_bytes_a_name():
    names = [f"video{number}" for number in range(10_000)]
    table, _ = NameTable.of(names)
    assert sum(array.nbytes for array in table.arrays.values()) < 40 * len(names)
    assert list(pickle.loads(pickle.dumps(table))) == list(table)
    assert np.all(np.diff(table.first.astype(object)) > 0)
