"""What a mount says of itself.

``statistics``  the facts of ``.volfs/stats.json``
``prometheus``  the same facts in ``.volfs/metrics``
"""
