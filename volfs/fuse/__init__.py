"""A store as a mounted filesystem.

``launcher``     starting and stopping a daemon from another process; ``fstab`` mount options as mount(8) gives them
``daemon``       the process around a mount; ``readiness`` its notice to the process that started it
``logs`` ``dump``  its log, and a report of its work in that log at SIGUSR1
``session``      one mount from start to end; ``limits`` those asked of kernel and process
``front``        C that answers reads before Python sees them
``turns``        waiting for the kernel's next request, awake or asleep
``adapter``      the FUSE protocol, thinly, over :class:`volfs.tree.contract.api.TreeApi`
``notify``       invalidation of the kernel's cache, from threads of its own
``mountpoints``  the mounts of this machine; ``processes`` the daemons; ``checkup`` a check of the machine
``mount_stats``  statistics of mounts, read by another process

Nothing is imported here: the command reads mount tables without loading FUSE.
"""
