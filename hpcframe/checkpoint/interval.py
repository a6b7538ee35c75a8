def optimal_interval(c, m):
    return (2 * c * m) ** 0.5


def expected_waste(i, c, m):
    return c / i


class History:
    interruptions = 0

    @staticmethod
    def read(f):
        return History()

    def write(self, f):
        pass

    def add(self, s):
        pass

    def mean_between(self, s):
        return 86400.0
