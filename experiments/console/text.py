"""Numbers for people: bytes, weights and durations, each by one rule wherever it is told."""


def size(number: float) -> str:
    """Bytes, to three digits: "288 KiB", "1.5 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1000 or unit == "GiB":
            break
        number /= 1024
    return f"{number:.3g} {unit}" if number < 1000 else f"{number:.0f} {unit}"


def count(number: float) -> str:
    """A number of weights, to three digits: "6.74 billion"."""
    power = next((k for k in range(4) if number < 1000 ** (k + 1)), 3)
    return f"{number / 1000**power:.3g} {('', 'thousand', 'million', 'billion')[power]}".rstrip()


def duration(seconds: float) -> str:
    """Seconds in the largest unit of which they are one and a half: "1.5 s", "80 s", "1.7 min", "2.0 h", "3.5 d"."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
