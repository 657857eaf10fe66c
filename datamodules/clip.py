"""The time axis of a video as a model sees it."""

from dataclasses import dataclass

from datamodules.schema import Video


@dataclass(frozen=True)
class Clip:
    """The time axis of a video as the model sees it: frame ``k`` shows second ``k / frames_per_s``."""

    duration_s: float
    """Length of the clip that times refer to."""
    frames: int
    frames_per_s: float

    @classmethod
    def of(cls, video: Video, duration_s: float) -> "Clip":
        """The axis of a video with its frames.

        Decoders give times such as 4.98 s for the frame of second 5. A rate that is a multiple of 0.1 but for such
        jitter (below 0.05 s over the whole video) is taken as that multiple, so that times at 1 fps are frame numbers.
        """
        times_s, frames = video.frame_times_s, len(video.features)
        length_s = float(times_s[-1] - times_s[0])
        rate = (frames - 1) / length_s if length_s > 0 else frames / (duration_s or 1.0)
        nominal = round(rate, 1)
        if nominal and abs((frames - 1) / nominal - length_s) < 0.05:
            rate = nominal
        return cls(duration_s, frames, rate)
