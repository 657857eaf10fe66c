"""The package stands alone, and asks for its extras by name when they are missing."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

from metrics import captions, similarity

PACKAGE = Path(captions.__file__).parent
ALLOWED = {"metrics", "numpy", "torch", "torchmetrics"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_importing_needs_no_extra_and_nothing_of_the_project(path):
    tree = ast.parse(path.read_text())
    for node in tree.body:  # imports inside functions run only when they are needed
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [node.module]
        for name in names:
            top = name.split(".")[0]
            assert top in ALLOWED or top in sys.stdlib_module_names, f"{path.name} imports {name}"


def test_missing_extras_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(captions.CaptionsUnavailable, match="captions"):
        captions.jar("meteor/meteor-1.5.jar")
    similarity.model.cache_clear()
    with pytest.raises(similarity.SimilarityUnavailable, match="similarity"):
        similarity.embed(["a"])


def test_missing_java_is_named(monkeypatch):
    captions.java.cache_clear()
    monkeypatch.setattr(captions.shutil, "which", lambda name, path=None: None)
    with pytest.raises(captions.CaptionsUnavailable, match="Java"):
        captions.java()


def test_meteor_that_stops_is_an_error(java):
    scorer = captions.Meteor()
    scorer.close()
    with pytest.raises(RuntimeError, match="METEOR stopped"):
        scorer.pairs([("a man", "a man")])


def test_sentences_with_line_breaks_and_bars_stay_one_sentence(java):
    tokens = captions.tokenizer()
    odd = ["one\ntwo", "one\r\ntwo\u2028three", "", " . ", "a ||| b"]
    assert [tokens(odd)[text] for text in odd[:4]] == ["one two", "one two three", "", ""]
    assert captions.meteor().pairs([(tokens(odd)["a ||| b"], "a b"), ("", "a"), ("a", "")])[1:] == [0.0, 0.0]


def test_embeddings_have_unit_length_and_do_not_depend_on_the_batch(encoder):
    texts = ["a man runs", "someone is running up the long and steep hill", "a", ""]
    vectors = similarity.embed(texts)
    assert vectors.norm(dim=1).tolist() == pytest.approx([1.0] * 4)
    alone = [similarity.embed([text])[0] for text in texts]
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(alone, vectors, strict=True))
    near, far = similarity.pair_similarities([("a man runs", "a person is running"), ("a man runs", "stock prices")])
    assert near > far
