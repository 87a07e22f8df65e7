"""The service's dropout masks, made again from the seed in its answer.

The generator is Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section
3.3): a function of the seed, the node's place in the model, the row and the column, with no state.
"""

from __future__ import annotations

import numpy as np

LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def philox(seed: int, node: int, row: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Four words for each pair of a row and a block of four columns."""
    row, block = np.broadcast_arrays(row.astype(np.uint64), block.astype(np.uint64))
    c0, c1, c2, c3 = block, np.full_like(block, node), row & LOW, row >> HALF
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ np.uint64(k0), p1 & LOW, (p0 >> HALF) ^ c3 ^ np.uint64(k1), p0 & LOW
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], -1)


def node_of(described: dict, name: str) -> int:
    """A node's place, from the answer of GET /models/{m}."""
    return [node["name"] for node in described["nodes"]].index(name)


def mask(seed: int, node: int, rows: int, columns: int, p: float) -> np.ndarray:
    """What a dropout of probability p multiplied its input with."""
    words = philox(seed, node, np.arange(rows)[:, None], np.arange(-(-columns // 4))[None])
    unit = (words.reshape(rows, -1)[:, :columns] >> np.uint64(8)).astype(np.float64) * 2.0**-24
    return np.where(unit < p, 0, 1 / (1 - p)).astype(np.float32)
