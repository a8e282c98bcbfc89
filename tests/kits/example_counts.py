"""How many examples hypothesis tries: so many in the suite, a hundred times as many in a soak."""

from __future__ import annotations

from hypothesis import settings

SUITE, SOAK = 50, 5000
"""Examples of a test that does not say how many."""


def examples(in_suite: int) -> int:
    """The count for a test that tries ``in_suite`` in the suite: in a soak more, as others do."""
    return in_suite * settings.default.max_examples // SUITE
