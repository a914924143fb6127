# SPDX-License-Identifier: Apache-2.0
"""kv_draw of policies/policy.h for other programs: SplitMix64's finalizer over three keys."""
import numpy as np

GOLDEN = 0x9E3779B97F4A7C15


def words(seed, key, n):
    """The 64 bits behind kv_draw(seed, key, i) for i in [0, n)."""
    z = np.full(n, (seed * GOLDEN ^ key) & (1 << 64) - 1, np.uint64)
    step = np.uint64(GOLDEN) * np.arange(1, n + 1, dtype=np.uint64)
    for _ in range(2):
        z = z + step
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return z


def draw(seed, key, n):
    """kv_draw(seed, key, i), in [0, 1)."""
    return (words(seed, key, n) >> np.uint64(11)).astype(np.float64) * 2.0**-53
