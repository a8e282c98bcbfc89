"""A branch while it is mounted: its writer's lock, its half-written files, its commits.

``registry``        the mounted branches of a tree
``mounted_branch``  one of them: who may write, and which removed slices are hidden
``invalidation``    what the kernel must forget when the branch changes
``level_ref``       a level by name, of a branch or of a version
``stages``          files being written over slices, until they decode; ``stage_handle`` one of them, open
``targets``         from a whole file to voxels and back
``draft``           the message of a commit while it is being written
``order``           an action under way; ``branch_actions`` begins and runs them: commit, discard, update, publish, tag
"""
