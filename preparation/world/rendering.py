"""A small video that anyone can make, for trying the commands that read videos."""

from pathlib import Path

import numpy as np

from datamodules.query_files import write_queries
from datamodules.schema import Event, Query

SCENES = (("red", (200, 40, 40), 0, 5), ("green", (40, 170, 60), 5, 9), ("blue", (40, 70, 210), 9, 12))
"""Name, colour, and first and last second of each scene."""
SIZE = 128
FPS = 10


def render_clip(path: Path) -> None:
    """Write a silent mp4 of 12 s, 128 x 128 pixels: one coloured scene after the other, a white square moving through.

    Beside it, under the same name with ``.jsonl``, goes its annotation: one ``events`` record.

    Args:
        path: file to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = [colour for _, colour, start_s, end_s in SCENES for _ in range((end_s - start_s) * FPS)]
    import av  # where a file is opened, and not before: it brings libraries of its own

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for number, colour in enumerate(colours):
            pixels = np.full((SIZE, SIZE, 3), colour, np.uint8)
            left = number * (SIZE - 32) // len(colours)
            pixels[48:80, left : left + 32] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    events = tuple(Event(start_s, end_s, f"a {name} box") for name, _, start_s, end_s in SCENES)
    write_queries(path.with_suffix(".jsonl"), [Query(path.stem, path.stem, "events", events=events)])
