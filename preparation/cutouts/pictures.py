"""The objects: photographs with transparency and a caption from Debian's tuxpaint-stamps-default, or drawn shapes."""

import hashlib
import math
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from command_line.paths import cache_folder

PACKAGE = "tuxpaint-stamps-default"
INSTALLED = Path("/usr/share/tuxpaint/stamps")
NO_PHOTOGRAPHS = ("symbols", "cartoon", "flags", "roadsigns", "seasonal", "space", "naturalforces")
"""Folders of drawings, signs, or pictures whose caption does not say what is seen."""
CAPTION = re.compile(r"An? ([a-z]+(?: [a-z]+)?)\.")
SMALLEST = 40
"""Pixels: shorter sides below this show too little."""
COLOURS = {
    "red": (205, 40, 45), "orange": (240, 140, 30), "yellow": (240, 215, 50), "green": (50, 150, 60),
    "blue": (45, 85, 200), "purple": (130, 60, 165), "white": (245, 245, 245), "black": (25, 25, 25),
}  # fmt: skip
CORNERS = {"triangle": 3, "square": 4, "pentagon": 5, "star": 10, "circle": 60}


@dataclass(frozen=True, eq=False)
class Cutout:
    """An object."""

    name: str
    """What it is, without an article: "guinea fowl"."""
    picture: Image.Image
    """RGBA."""
    photograph: bool = True

    @property
    def phrase(self) -> str:
        """With its article: "an owl"."""
        return with_article(self.name)


def with_article(noun: str) -> str:
    """For example "an owl" of "owl"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def fetch_stamps() -> Path | None:
    """The folder of stamps: installed, fetched before, or fetched now without being installed. None: not to be had.

    They are GPL-2: read from where apt puts them, never part of this repository.
    """
    if INSTALLED.is_dir():
        return INSTALLED
    kept = cache_folder() / PACKAGE
    inside = kept / INSTALLED.relative_to("/")
    if inside.is_dir() or not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return inside if inside.is_dir() else None
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as name:
        folder = Path(name)
        try:
            subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True, capture_output=True, timeout=600)
            (deb,) = folder.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", deb, folder / "files"], check=True, capture_output=True)
            (folder / "files").rename(kept)
        except (subprocess.SubprocessError, OSError, ValueError):
            return None
    return inside if inside.is_dir() else None


def read_stamps(folder: Path, most: int) -> list[Cutout]:
    """Photographs of different things, in an order that depends on their names alone.

    Args:
        folder: of the stamps, with subfolders.
        most: how many are wanted.

    Raises:
        ValueError: there are fewer.
    """
    files: dict[str, Path] = {}
    for path in sorted(Path(folder).rglob("*.png")):
        text = path.with_suffix(".txt")
        if not text.is_file() or any(part in NO_PHOTOGRAPHS for part in path.relative_to(folder).parts):
            continue
        first = text.read_text(errors="replace").partition("\n")[0].strip()
        if found := CAPTION.fullmatch(first):
            files.setdefault(found[1], path)
    cutouts = []
    for name in sorted(files, key=lambda name: hashlib.sha256(name.encode()).digest()):
        with Image.open(files[name]) as opened:
            picture = opened.convert("RGBA")
        if min(picture.size) >= SMALLEST and picture.getextrema()[3][0] == 0:  # something of it is transparent
            cutouts.append(Cutout(name, picture))
        if len(cutouts) == most:
            return cutouts
    raise ValueError(f"{folder} holds {len(cutouts)} cut-out photographs with a short caption, {most} are needed")


def draw_cutouts(most: int) -> list[Cutout]:
    """Shapes in colours, where no photographs are to be had; 40 at most."""
    cutouts = []
    for number in range(min(most, len(COLOURS) * len(CORNERS))):
        colour = list(COLOURS)[number % len(COLOURS)]
        shape = list(CORNERS)[number % len(CORNERS)]  # 8 and 5 have no common divisor: every pair comes once
        picture = Image.new("RGBA", (160, 160))
        _draw(ImageDraw.Draw(picture), shape, COLOURS[colour])
        cutouts.append(Cutout(f"{colour} {shape}", picture, photograph=False))
    return cutouts


def _draw(draw: ImageDraw.ImageDraw, shape: str, colour: tuple[int, int, int]) -> None:
    count, points = CORNERS[shape], []
    for corner in range(count):
        radius = 30 if shape == "star" and corner % 2 else 75
        angle = 2 * math.pi * (corner + 0.5 * (shape == "square")) / count - math.pi / 2
        points.append((80 + radius * math.cos(angle), 80 + radius * math.sin(angle)))
    draw.polygon(points, fill=(*colour, 255), outline=(90, 90, 90, 255))
