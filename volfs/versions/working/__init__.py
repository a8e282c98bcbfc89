"""Working copies: layers of ordinary files over a version, as overlayfs would show them.

``working_copy``    :class:`WorkingCopy`: every operation on the keys of a branch, with POSIX semantics
``union``           layers and base seen as one directory tree; ``layer`` one of them, and the whiteouts that hide what
                    is below it
``open_files``      open files by key; ``clock`` the times of changes, and a count of them that every process reads
``branch_lock``     the right to write, for one process at a time; ``base_file`` the version that lies below
``layer_moves``     layers coming and going: frozen for a commit, merged back, dropped
``interpreter``     keys as chunks, metadata or objects, and which files cannot be committed
``union_snapshot``  keys and arrays of a union; ``branch_array`` an array in one, ``chunk_maps`` where its chunks lie
``status``          what is uncommitted, and in the way of a commit; ``refusals`` the last writes that were refused
"""
