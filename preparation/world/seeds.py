"""Randomness for each purpose by itself, so that no part of a made-up world depends on how many others were made."""

import hashlib

import numpy as np


def generator(seed: int, *key) -> np.random.Generator:
    """A generator that depends on the seed and the words of ``key`` alone."""
    digest = hashlib.sha256(repr((seed, *map(str, key))).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype="<u4"))
