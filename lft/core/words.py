"""Numbers in sentences."""


def counted(count: int, noun: str) -> str:
    """`1 rank`, `2 ranks`; for nouns that take an s."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
