"""Scenes to pixels and mp4 files.

Shape suffixes: H height, W width.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from preparation.cutouts.pictures import COLOURS, Cutout
from preparation.cutouts.scenes import MOTIONS, WALLS, Scene, Shown
from preparation.world.seeds import generator

SIDE = 160
"""Pixels of a video's height and width."""
FPS = 4
"""Pictures a second."""


def background(wall: int, texture: int) -> Image.Image:
    """(H, W) a wall in its colour, lighter at one side, with blurred stains; every texture has stains of its own."""
    rng = generator(0, "wall", wall, texture)
    stains = rng.normal(0, 60, (SIDE // 8, SIDE // 8, 1)).repeat(8, 0).repeat(8, 1)
    angle = rng.uniform(0, 2 * np.pi)
    across = np.linspace(-1, 1, SIDE)
    light = 35 * (np.cos(angle) * across[:, None] + np.sin(angle) * across[None])[..., None]
    muted = 0.6 * np.array(COLOURS[WALLS[wall]]) + 50
    pixels = np.clip(muted + light + stains, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(6))


def rendered(cutout: Cutout, rendering: int) -> Image.Image:
    """RGBA: an object as one of its renderings shows it, its longer side as long as the video's."""
    rng = generator(0, "rendering", cutout.name, rendering)
    picture = cutout.picture
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = picture.resize(
        [round(SIDE * side / max(picture.size)) for side in picture.size], Image.Resampling.BILINEAR
    )
    picture = picture.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR, expand=True)
    *colours, opacity = picture.split()
    enhanced = Image.merge("RGB", colours)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        enhanced = kind(enhanced).enhance(rng.uniform(0.7, 1.25))
    return Image.merge("RGBA", (*enhanced.split(), opacity))


def place(wall: Image.Image, look: Image.Image, motion: int, progress: float) -> Image.Image:
    """A picture with an object somewhere on its way.

    Args:
        wall: behind it.
        look: the rendered object.
        motion: how it moves.
        progress: 0 at the begin of the event to 1 at its end.
    """
    what, scale, across = MOTIONS[motion], 0.75, 0.5
    if what.startswith("moves"):
        across = 0.3 + 0.4 * (progress if what.endswith("right") else 1 - progress)
    else:
        scale = 0.5 + 0.45 * (progress if what == "comes closer" else 1 - progress)
    small = look.resize([max(1, round(scale * side)) for side in look.size], Image.Resampling.BILINEAR)
    picture = wall.copy()
    picture.paste(small, (round(across * SIDE - small.width / 2), round((SIDE - small.height) / 2)), small)
    return picture


def pictures(scene: Scene, objects: Sequence[Cutout]) -> Iterator[Image.Image]:
    """The pictures of a scene, one after the other; picture n is shown at n / FPS seconds."""
    wall = background(scene.wall, scene.texture)
    looks: dict[Shown, Image.Image] = {shown: rendered(objects[shown.object], shown.rendering) for shown in scene.shown}
    for number in range(round(scene.duration_s * FPS)):
        time_s, picture = number / FPS, wall
        for shown, look in looks.items():
            if shown.start_s <= time_s < shown.end_s:
                progress = (time_s - shown.start_s) / (shown.end_s - shown.start_s)
                picture = place(wall, look, shown.motion, progress)
        yield picture


def write_video(folder: Path, scene: Scene, objects: Sequence[Cutout]) -> None:
    """Write a scene as ``NAME.mp4``, without sound."""
    import av  # where a file is opened, and not before: it brings libraries of its own

    with av.open(str(Path(folder) / f"{scene.name}.mp4"), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = SIDE, SIDE, "yuv420p", 400_000
        for picture in pictures(scene, objects):
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
