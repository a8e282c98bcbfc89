"""Pyramids: the levels that volfs keeps equal to what the level above makes of them."""

from __future__ import annotations

from volfs.volume.downsample import downsample, method_for

__all__ = ["downsample", "method_for"]
