"""The first adapter: frames begin as the word vectors of what they show.

A linear adapter has a best solution in closed form (ridge regression): no step of training is needed to come near it,
and no language model, whose first layers alone say little.

Shape suffixes: N pictures, C different captions, V words, D_feature width of the features, D width of word vectors.
"""

from dataclasses import asdict
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from datamodules.query_files import read_queries
from datamodules.shards import ShardReader
from localizers import TextTimestamps
from models.adapters import Linear
from models.checkpoints import Weights, fingerprint, load_llm, load_tokenizer, write_weights

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Strengths that are tried; the best on other renderings counts."""


def align(world: Path, shards: Path, llm: str, folder: Path) -> dict[str, float]:
    """Fit an adapter to captioned pictures, and write it as a run folder that training goes on from.

    Args:
        world: folder of ``write_world``.
        shards: features of its pictures.
        llm: the base.
        folder: run folder to write.

    Returns:
        the ridge, and ``train``, ``val`` and ``object``: percentage of pictures whose nearest caption, of all that
        there are, is their own; ``object among objects``: of those of the unseen objects alone.
    """
    base, reader = load_llm(llm, torch.float32), ShardReader(shards)
    vectors, tokenizer = base.get_input_embeddings().weight.detach(), load_tokenizer(llm)

    def mean_vector(caption: str) -> Tensor:
        ids = tokenizer.encode(f" {caption.rstrip('.').split(' ', 1)[1]}", add_special_tokens=False)
        return vectors[ids].mean(0)

    splits = {split: list(read_queries(world / f"pictures_{split}.jsonl")) for split in ("train", "val", "object")}
    captions = sorted({query.turns[0].answer for queries in splits.values() for query in queries})
    targets = torch.stack([mean_vector(caption) for caption in captions])  # (C, D)
    data = {}
    for split, queries in splits.items():
        features = torch.stack([torch.from_numpy(reader.read(query.video).features[0]).float() for query in queries])
        data[split] = features, torch.tensor([captions.index(query.turns[0].answer) for query in queries])
    fits = {ridge: fit(data["train"][0], targets[data["train"][1]], ridge) for ridge in RIDGES}
    best = max(RIDGES, key=lambda ridge: nearest(fits[ridge], *data["val"], targets))
    adapter = fits[best]
    manifest = {
        "stage": "ridge regression onto word vectors",
        "base": {"name": llm, "fingerprint": fingerprint(base)},
        "localizer": TextTimestamps().config(),
        "chat": "plain",
        "adapter": Linear().config(),
        "feature_width": reader.header.width,
        "features": asdict(reader.header),
    }
    write_weights(folder / "model", Weights(adapter.state_dict(), manifest=manifest))
    sources = [{"shards": str(shards), "queries": str(world / "pictures_train.jsonl")}]
    config = {"data": {"train": sources}, "model": {"init_args": {"llm": llm}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    scores = {split: nearest(adapter, *found, targets) for split, found in data.items()}
    names, among = data["object"][1].unique(return_inverse=True)
    return {"ridge": best, **scores, "object among objects": nearest(adapter, data["object"][0], among, targets[names])}


def fit(features: Tensor, targets: Tensor, ridge: float) -> nn.Linear:
    """The linear layer with the least squared error, with a penalty on its weights.

    Args:
        features: (N, D_feature).
        targets: (N, D).
        ridge: strength of the penalty, in units of the features' mean variance.
    """
    features, targets = features.double(), targets.double()
    mean, aim = features.mean(0), targets.mean(0)
    centred = features - mean
    covariance = centred.T @ centred / len(features)
    penalty = ridge * covariance.diagonal().mean() * torch.eye(len(mean), dtype=covariance.dtype)
    weight = torch.linalg.solve(covariance + penalty, centred.T @ (targets - aim) / len(features)).T
    layer = nn.Linear(len(mean), len(aim)).requires_grad_(False)
    layer.weight.copy_(weight)
    layer.bias.copy_(aim - weight @ mean)
    return layer


def nearest(adapter: nn.Linear, features: Tensor, right: Tensor, targets: Tensor) -> float:
    """How often the nearest caption is the right one, in percent.

    Args:
        adapter: D_feature -> D.
        features: (N, D_feature).
        right: (N,) numbers of the right captions.
        targets: (C, D) their vectors; the cosine is taken around their mean.
    """
    centre = targets.mean(0)  # word vectors have much in common, which tells nothing
    vectors = functional.normalize(adapter(features) - centre, dim=-1)
    found = (vectors @ functional.normalize(targets - centre, dim=-1).T).argmax(-1)
    return 100 * (found == right).float().mean().item()
