"""One engine for combining: by the changes of two lines of history, what one of them changed on top of the other.

``key_selection``   the keys, and the box of voxels, that are meant
``candidates``      the keys and chunks in which two versions may differ, from the manifests since their lines parted
``chunk_states``    chunks of an array at a version, in columns; ``digests`` their SHA-256, from manifests
``virtual_base``    a key or chunk at several merge bases, merged on demand; ``voxels`` one block, voxel by voxel
``decisions``       conflicts, and who wins them; ``key_merge`` whole keys, ``array_merge`` an array, chunk by chunk
``label_ids``       ids that two sides have given to new things
``combination``     :func:`combine`: the outcome for all nodes, before anything is written
``newest``          the outcome of several versions that are laid over each other instead
``combined_state``  that outcome as a snapshot, for levels that are computed from it
``combined_version``  the version that holds it
``scratch_branch``  where several versions are made before a branch moves once: ``amendment`` its head made anew,
                    ``rebase`` its versions on top of another; ``resolution`` conflicts that were left open, closed
``late_commit``     uncommitted changes that overlap with what the head has moved to, as its next version
``relocation``      a node under another name
``requests``        what is asked of a branch, in words; ``merges`` merge, cherry-pick and the others, carried out
"""
