"""Seeds of draws that depend on several numbers, such as seed, step and rank."""

import numpy as np


def mixed(*numbers: int) -> int:
    """One seed in [0, 2^63) from several integers >= 0, the same in every version of Python and on every machine.

    >>> mixed(0, 1, 2) == mixed(0, 1, 2), mixed(0, 1, 2) == mixed(0, 2, 1)
    (True, False)
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
