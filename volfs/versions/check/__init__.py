"""``volfs fsck``: whether a store holds what it says.

``fsck``   a whole store: refs, catalog, and what is asked of several versions together
``proof``  one version, from its own files: every payload read, summed and decoded
"""
