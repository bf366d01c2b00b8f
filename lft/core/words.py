"""Numbers in sentences."""


def counted(count: int, noun: str) -> str:
    """`1 rank`, `2 ranks`; for nouns that take an s."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def rounded(number: int) -> str:
    """A count to three digits: `6.82 M`, `8.03 B`, `812 k`."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)
