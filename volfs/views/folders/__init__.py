"""Formats that are directories, one module each: see :mod:`volfs.views.folder` for what they are made of."""
