"""A store as a mounted filesystem.

``adapter``      the FUSE protocol, thinly, over :class:`volfs.tree.api.TreeApi`
``notify``       telling the kernel to forget, from threads of its own
``serving``      one mount from its coming to its going
``daemon``       the process around it; ``logs`` and ``tuning`` are its log and its limits
``mounting``     starting and stopping a daemon from another process
``mountpoints``  what is mounted where; ``processes`` which daemons run; ``checkup`` what the machine lacks

Nothing is imported here: the command reads mount tables without loading FUSE.
"""
