"""Why a file is not read, and what its owner can do about it."""

CUT = "get the file again; what is there becomes a video of its own with: ffmpeg -i FILE -c copy NEW"
DAMAGED = "get the file again; what can still be shown becomes a video of its own with: ffmpeg -i FILE NEW.mp4"


class Refused(ValueError):
    """A file that is not read.

    Args:
        reason: why, in words that many files share.
        detail: more about this one.
        remedy: what to do.
    """

    def __init__(self, reason: str, detail: str, remedy: str):
        super().__init__(f"{reason}: {detail}; {remedy}")
        self.reason, self.detail = reason, f"{detail}; {remedy}"


def cut_off(detail: str) -> Refused:
    """For a file of which the end is missing."""
    return Refused("not whole", f"cut off: {detail}", CUT)


def damaged(detail: str) -> Refused:
    """For a file of which something in the middle is missing or was overwritten."""
    return Refused("not whole", f"damaged inside: {detail}", DAMAGED)
