"""Which video an annotation means by a name."""

from collections import defaultdict
from collections.abc import Iterable


class VideoNames:
    """Finds a video by its id or by the end of it: ``s1`` means ``tacos/s1``, unless there is a ``queryd/s1`` too.

    Videos from nested folders have the folders in their ids. Some annotations name them too (E.T. Instruct), others
    only the file (NExT-QA, LCS-558K).

    Args:
        ids: of all videos there are.
    """

    def __init__(self, ids: Iterable[str]):
        self._ids = set(ids)
        self._nested: dict[str, list[str]] = defaultdict(list)
        for video_id in self._ids:
            if "/" in video_id:
                self._nested[video_id.rsplit("/", 1)[1]].append(video_id)

    def find(self, name: str) -> str | None:
        """The id of the video that is meant; None if there is none, or more than one."""
        if name in self._ids:
            return name
        found = self._ending(name)
        return found[0] if len(found) == 1 else None

    def remedy(self, name: str, otherwise: str) -> str:
        """What to do about a name that ``find`` gives nothing for."""
        if found := self._ending(name):
            return f"it may be {found[0]!r} or {found[1]!r}: name the folder in the annotations too"
        if (file := name.rsplit("/", 1)[-1]) != name and file in self._ids:
            return f"there is a {file!r}, whose id does not say the folder: use the folder above as --videos"
        return otherwise

    def _ending(self, name: str) -> list[str]:
        return sorted(one for one in self._nested.get(name.rsplit("/", 1)[-1], ()) if one.endswith(f"/{name}"))
