class Rates:
    def add(self, b, s):
        pass

    def predict(self, b):
        return None


def fits(p, left, safety=1.5):
    return p is None or p * safety <= left
