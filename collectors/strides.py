"""Which elements of a large tensor stand for all: every k-th one, with a k that fits no axis.

A k that divides the width of a feature map would meet the same columns in every row of it: of
28 × 14 × 14 potentials every 7th, say, are those of two columns, and one of the two is the border.
"""

import math
from functools import lru_cache


@lru_cache(maxsize=512)
def fair_stride(n: int, most: int) -> int:
    """The least stride that takes at most `most` of n elements and shares no factor with n.

    So it shares none with the length of any axis either, and meets each index of each axis in turn.
    """
    stride = -(-n // most)
    while math.gcd(stride, n) > 1:
        stride += 1
    return max(1, stride)
