"""Named random streams: every random number of a run is a function of (seed, path).

A path names what the number is for, such as ("direction", step, parameter name), so that adding a module, an
evaluation or a method never shifts the numbers of another. The global generators of Python, NumPy and torch are never
touched.
"""

import hashlib
import json


def fold_in(seed: int, *path: str | int) -> int:
    """A 32-bit seed for one named stream.

    32 bits, because torch's CPU generator (mt19937) ignores the higher bits of its seed.

    Args:
        seed: any integer.
        path: what the stream is for; `("a", "b")` and `("ab",)` are different streams.
    """
    digest = hashlib.blake2b(json.dumps([seed, *path]).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")
