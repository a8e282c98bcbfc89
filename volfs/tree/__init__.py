"""The directory tree of a mounted store, without any mount. Each part imports only those above it in this list.

``contract``      what a front end sees: requests, attributes, notices
``core``          what every inode and open file has; threads, caches, inode numbers
``images``        the images of a snapshot
``branches``      a mounted branch: its lock, half-written slices, actions, what the kernel must forget
``files``         kinds of files: documents, byte layouts over voxels, keys, files written as a whole
``monitoring``    the statistics of a mount
``nodes``         what is where: a module for each kind of directory
``leftovers``     half-written slices of an earlier daemon
``housekeeping``  work that no request asks for: watching other processes, dropping, writing inodes
``tree``          :class:`Tree`: from a request to a node, and which requests wait for what

Nothing is imported here: whoever reads the statistics of a mount needs the words of ``contract`` and no tree.
"""
