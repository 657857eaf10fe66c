"""Which video an annotation means by a name."""

from collections.abc import Iterable

import numpy as np

from datamodules.name_table import HASH, NameTable, first_half


class VideoNames:
    """Finds a video by its id or by the end of it: ``s1`` means ``tacos/s1``, unless there is a ``queryd/s1`` too.

    Videos from nested folders have the folders in their ids. Some annotations name them too (E.T. Instruct), others
    only the file (NExT-QA, LCS-558K).

    Args:
        ids: of all videos there are.
    """

    def __init__(self, ids: Iterable[str]):
        self._know(NameTable.of(set(ids))[0])

    @classmethod
    def of_table(cls, ids: NameTable, files: np.ndarray | None = None, nested: np.ndarray | None = None):
        """The same from a table, and from what ``files`` and ``nested`` were before."""
        names = cls.__new__(cls)
        names._know(ids, files, nested)
        return names

    def _know(self, ids: NameTable, files: np.ndarray | None = None, nested: np.ndarray | None = None) -> None:
        self.ids = ids
        if files is None or nested is None:
            nested = np.array([place for place, name in enumerate(ids) if "/" in name], np.dtype("<u4"))
            files = np.array([first_half(_file(ids[place])) for place in nested], HASH)
            order = files.argsort(kind="stable")
            files, nested = files[order], nested[order]
        self.files, self.nested = files, nested
        """Of the ids with a folder: sorted hashes of what is behind it, and their places."""

    def find(self, name: str) -> str | None:
        """The id of the video that is meant; None if there is none, or more than one."""
        place = self.place(name)
        return None if place is None else self.ids[place]

    def place(self, name: str) -> int | None:
        """Where in ``ids`` the video is that is meant; None if there is none, or more than one."""
        if (place := self.ids.find(name)) is not None:
            return place
        found = self._ending(name)
        return found[0] if len(found) == 1 else None

    def places(self, names: NameTable) -> np.ndarray:
        """(M,) what ``place`` gives for each name of a table; -1: none."""
        found = self.ids.places_of(names)
        for number in np.flatnonzero(found < 0).tolist():
            place = self.place(names[number])
            found[number] = -1 if place is None else place
        return found

    def remedy(self, name: str, otherwise: str) -> str:
        """What to do about a name that ``find`` gives nothing for."""
        if found := sorted(self.ids[place] for place in self._ending(name)):
            return f"it may be {found[0]!r} or {found[1]!r}: name the folder in the annotations too"
        if (file := _file(name)) != name and self.ids.find(file) is not None:
            return f"there is a {file!r}, whose id does not say the folder: use the folder above as --videos"
        return otherwise

    def _ending(self, name: str) -> list[int]:
        if not len(self.nested):
            return []
        first = np.array(first_half(_file(name)), HASH)
        begin, end = (int(np.searchsorted(self.files, first, side)) for side in ("left", "right"))
        return [place for place in self.nested[begin:end].tolist() if self.ids[place].endswith(f"/{name}")]


def _file(name: str) -> str:
    return name.rsplit("/", 1)[-1]
