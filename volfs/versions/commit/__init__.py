"""From a working copy or an import to a version, its place on a branch, and recovery after a crash.

``writable_history``  the dataset and its branches as those know them who add versions
``protocol``          the steps of a commit, and how each is undone or finished
``movement``          the keys and chunks that differ between versions, or that a working copy touches; ``overlap``
                      those that two sets of changes touch, ``follower`` the base of a working copy, moved to a newer
                      head
``frozen_state``      what is being committed, as a snapshot
``changeset``         what may be committed, and as what: chunks, removals, objects
``version_writer``    :class:`VersionWriter`, which alone makes versions; ``array_writer`` the chunks of one array in
                      it, ``shard_shape`` how densely they are packed
``placement``         a version that took hours to make, put onto a branch that moved meanwhile
``head_move``         a head that moves to a version which exists already
``publish``           a directory as a ledger: the few steps that make a version exist; ``retired_list`` those that were
                      dropped
``branch_rename``     a branch with its working copy under another name
``mirror``            the catalog, catching up with a dataset's files
``recover``           what opening a store puts right
"""
