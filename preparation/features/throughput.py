"""How fast an extraction was, and who waited for whom."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Throughput:
    """Seconds of one process, or of several together."""

    frames: int = 0
    """Decoded and encoded."""
    wall_s: float = 0.0
    decode_s: float = 0.0
    """Work of all decoders."""
    encode_s: float = 0.0
    """Work of all encoders."""
    starved_s: float = 0.0
    """Encoders waited for frames."""
    encoders_s: float = 0.0
    """Encoders were there, busy or not."""
    decoders_s: float = 0.0
    """Decoders were there, busy or not."""

    @classmethod
    def together(cls, parts: Sequence["Throughput"]) -> "Throughput":
        """Of processes that worked at the same time."""
        sums = {name: sum(getattr(part, name) for part in parts) for name in cls.__dataclass_fields__}
        return cls(**sums | {"wall_s": max(part.wall_s for part in parts)})

    def describe(self) -> dict[str, str]:
        """What is measured -> the number, in words."""
        if not self.frames:
            return {}
        starved, idle = self.starved_s / self.encoders_s, max(1 - self.decode_s / self.decoders_s, 0.0)
        return {
            "frames": f"{self.frames} in {self.wall_s:.1f} s",
            "frames/s": f"{self.frames / self.wall_s:.1f}",
            "frames/s of a decoder": f"{self.frames / self.decode_s:.1f}",
            "frames/s of an encoder": f"{self.frames / self.encode_s:.1f}",
            "encoder waits for frames": f"{starved:.0%} of the time"
            + (" (more --decoders help)" if starved > 0.3 else ""),
            "decoders wait for the encoder": f"{idle:.0%} of the time",
        }
