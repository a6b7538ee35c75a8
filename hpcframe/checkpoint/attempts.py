def begin(folder, c):
    return c[0]


def clear(folder):
    pass
