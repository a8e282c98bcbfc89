"""The statistics of a mount.

``statistics``  the facts of ``.volfs/stats.json``
``prometheus``  the same facts in ``.volfs/metrics``
"""
