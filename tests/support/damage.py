"""Ways in which a file gets damaged."""


def missing(file):
    file.unlink()


def empty(file):
    file.write_bytes(b"")


def halved(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def one_bit(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def zeroed(file):
    """4 KiB in the middle, or as much as there is."""
    data = bytearray(file.read_bytes())
    start = max(0, len(data) // 2 - 2048)
    part = data[start : start + 4096]
    data[start : start + 4096] = bytes(len(part))
    file.write_bytes(data)


WAYS = (missing, empty, halved, one_bit, zeroed)
