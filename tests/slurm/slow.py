"""A model that takes its time, so that a job of it can be met on its way."""

import time

from hpcframe.kernels.heat import Heat


class Slow(Heat):
    """Heat, of which each step takes 0.05 s more."""

    def advance(self, steps, dt):
        for _ in range(steps):
            super().advance(1, dt)
            time.sleep(0.05)
