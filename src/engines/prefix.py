"""What two sequences of tokens have in common. Knows no engine."""


def common_prefix(a: list[int], b: list[int]) -> int:
    """How many tokens both begin with. By halves, so that the comparing is done by slices, not token by token."""
    known, end = 0, min(len(a), len(b))
    while known < end:
        middle = (known + end + 1) // 2
        if a[known:middle] == b[known:middle]:
            known = middle
        else:
            end = middle - 1
    return known
