import zlib


def crc32c(d, before=0):
    return zlib.crc32(d, before)


def ready(node):
    pass
