"""Sizes as people read them."""


def gigabytes(size_bytes: int) -> str:
    """Return the size in GB or MB (powers of ten), with three digits or fewer."""
    if size_bytes < 999_500_000:
        return f"{size_bytes / 1e6:.3g} MB"
    return f"{size_bytes / 1e9:.3g} GB"
