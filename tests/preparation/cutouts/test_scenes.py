"""Scenes of photographs: what each split may show, what is said, and what the videos hold."""

import pytest

from datamodules.query_files import read_queries
from preparation.cutouts.pictures import COLOURS, CORNERS, draw_cutouts, read_stamps, with_article
from preparation.cutouts.scenes import KNOWN_RENDERINGS, KNOWN_TEXTURES, TESTS, WORDING, Scenes
from preparation.cutouts.world import Sizes, write_world
from preparation.features.decoding import Sampling, Source, decode


@pytest.fixture(scope="module")
def scenes():
    return Scenes(draw_cutouts(20), unseen=5)


def drawn(scenes, split, count=40):
    return [scenes.scene(split, number) for number in range(count)]


def news(scenes, scene):
    """What of a scene training never shows."""
    kinds = {
        "object": [shown.object >= scenes.known for shown in scene.shown],
        "rendering": [shown.rendering >= KNOWN_RENDERINGS for shown in scene.shown],
        "combination": [scenes.held_out(shown.object, shown.motion) for shown in scene.shown],
        "background": [scene.texture >= KNOWN_TEXTURES],
    }
    return {kind for kind, found in kinds.items() if any(found)} if any(map(any, kinds.values())) else set()


@pytest.mark.parametrize("split", ["train", "val", *TESTS])
def test_a_split_shows_its_own_news_and_no_other(scenes, split):
    expected = {split} if split in ("object", "rendering", "combination", "background") else set()
    assert all(news(scenes, scene) == expected for scene in drawn(scenes, split))


def test_every_event_of_a_test_split_has_its_news(scenes):
    assert all(scenes.held_out(s.object, s.motion) for scene in drawn(scenes, "combination") for s in scene.shown)
    assert all(s.rendering >= KNOWN_RENDERINGS for scene in drawn(scenes, "rendering") for s in scene.shown)


def test_scenes_differ_between_splits_and_are_the_same_again(scenes):
    again = Scenes(draw_cutouts(20), unseen=5)
    assert drawn(scenes, "val") == drawn(again, "val")
    assert [s.shown for s in drawn(scenes, "val")] != [s.shown for s in drawn(scenes, "train")]


def test_details_name_what_queries_do_not(scenes):
    scene = scenes.scene("train", 0)
    for event in scenes.events(scene):
        assert event.detail.startswith(event.caption)
        assert event.detail.endswith("wall")
        assert "wall" not in event.caption
    moments = scenes.moments(scene, wordings=2)
    assert len({query.id for query in moments}) == 2 * len(scene.shown)
    assert len({query.text for query in moments}) == 2 * len(scene.shown)
    with pytest.raises(ValueError, match="of each are needed"):
        Scenes(draw_cutouts(5), unseen=2)


def test_the_video_shows_what_is_said_when_it_is_said(scenes, tmp_path):
    write_world(tmp_path, scenes, Sizes(train=1, val=1, test=1))
    scene = scenes.scene("train", 0)
    path = tmp_path / "videos/train0000.mp4"
    *chunks, end = decode(Source("a", path), Sampling(fps=4.0), 1000)
    assert end.video["duration_s"] == pytest.approx(scene.duration_s)
    pixels = chunks[0].pixels[end.video["repeat"]].astype(float)
    empty = pixels[0]  # nothing is shown at first
    for time_s, frame in zip(end.video["frame_times_s"], pixels, strict=True):
        shown = any(s.start_s <= time_s < s.end_s for s in scene.shown)
        assert ((abs(frame - empty).max(-1) > 30).mean() > 0.005) == shown, time_s
    assert len(list(read_queries(tmp_path / "train.jsonl"))) == 2 * 3 + 1
    assert len(list(read_queries(tmp_path / "test/object/grounding.jsonl"))) == 3
    assert len(list((tmp_path / "pictures").glob("*.jpg"))) == 20 * 10
    assert {query.turns[0].answer for query in read_queries(tmp_path / "pictures_object.jsonl")} == {
        f"{cutout.phrase.capitalize()}." for cutout in scenes.objects[15:]
    }


def test_drawn_objects_are_all_different():
    cutouts = draw_cutouts(1000)
    assert len({cutout.name for cutout in cutouts}) == len(cutouts) == len(COLOURS) * len(CORNERS)
    assert not cutouts[0].photograph
    assert with_article("owl") == "an owl"
    assert all("{}" in wording for wording in WORDING)


def test_stamps_without_a_caption_or_transparency_are_left_out(tmp_path):
    picture = draw_cutouts(1)[0].picture
    for name, caption in {
        "owl": "An owl.\nde.utf8=Eine Eule.", "sign": "A sign.", "ghost": "A ghost.", "no": "One!", "big": "A pig.",
    }.items():  # fmt: skip
        folder = tmp_path / ("symbols" if name == "sign" else "animals")
        folder.mkdir(exist_ok=True)
        (picture.resize((20, 20)) if name == "ghost" else picture).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(caption)
    picture.convert("RGB").save(tmp_path / "animals/big.png")
    assert [cutout.phrase for cutout in read_stamps(tmp_path, 1)] == ["an owl"]
    with pytest.raises(ValueError, match="holds 1 cut-out photographs with a short caption, 2 are needed"):
        read_stamps(tmp_path, 2)
