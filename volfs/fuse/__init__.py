"""A store as a mounted filesystem.

``mounting``     starting and stopping a daemon from another process; ``fstab`` mount options as mount(8) gives them
``daemon``       the process around a mount; ``readiness`` its word to the process that started it
``logs`` ``dump``  what it writes: its log, and what it is doing when SIGUSR1 asks
``serving``      one mount from its coming to its going; ``tuning`` limits asked of kernel and process
``waiting``      waiting for the kernel's next request
``adapter``      the FUSE protocol, thinly, over :class:`volfs.tree.contract.api.TreeApi`
``notify``       telling the kernel to forget, from threads of its own
``mountpoints``  what is mounted where; ``processes`` which daemons run; ``checkup`` what the machine lacks
``mount_stats``  what mounts say of themselves, read by another process

Nothing is imported here: the command reads mount tables without loading FUSE.
"""
