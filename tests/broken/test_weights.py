"""Weights folders that are broken, or have lost a part: refused with file and key, and never used as they are."""

import json
import re

import pytest
from corpus import FOLDERS, edit, weights

import prepare
from models.checkpoints import read_weights
from models.tensor_files import read_tensors


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a whole folder."""
    folder = weights(tmp_path_factory.mktemp("whole"))
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(whole, tmp_path):
    """A copy of it, as ``model/`` of a run."""
    for name, content in whole.items():
        path = tmp_path / "run" / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "run" / "model"


@pytest.mark.parametrize("name", FOLDERS)
def test_it_is_refused_with_file_and_cause(name, folder, tmp_path, capsys):
    change, words = FOLDERS[name]
    change(folder)
    with pytest.raises((ValueError, OSError), match=words) as error:
        read_weights(folder.parent)
    assert str(folder) in str(error.value)
    assert prepare.main(["export", "--checkpoint", str(folder.parent), "--to", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("prepare.py: error: ") and "traceback in" not in said


def test_a_whole_folder_is_read_and_says_what_it_has(folder):
    found = read_weights(folder)
    assert set(found.parts) == {"adapter", "head", "lora-1", "lora-2", "temporal", "spatial"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["version"] == 2
    assert {name: part["tensors"] for name, part in manifest["parts"].items()} == {
        name: len(tensors) for name, tensors in found.parts.items()
    }
    assert not {"version", "parts"} & found.manifest.keys()


def test_a_folder_of_before_is_read_without_its_list(folder):
    for key in ("version", "parts"):
        edit(folder / "manifest.json", key)
    assert len(read_weights(folder).parts) == 6


def test_weights_that_are_not_finite_are_not_written(folder, tmp_path):
    found = read_weights(folder)
    found.head["h"][0] = float("nan")
    from models.checkpoints import write_weights

    with pytest.raises(ValueError, match="head.safetensors: h holds NaN"):
        write_weights(tmp_path / "new", found)
    assert not (tmp_path / "new" / "manifest.json").exists()


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin"])
@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04", b"\x80\x02}", b"\xff" * 100], ids=range(5))
def test_a_file_of_tensors_that_is_none_is_named(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))):
        read_tensors(tmp_path / name)
