"""Store, dataset, version, branch: what a key is in a snapshot, how it is changed, and how a version comes to be.

A request comes in at the bottom of this list and goes up; each line imports only those above it.

``keys``            keys of the hierarchy and paths of its nodes, from one to the other; ``author`` who commits, by
                    default
``rules``           what a dataset asks of new versions
``access``          owner, group and mode of a dataset; ``clone_parts`` what a partial clone has; ``dataset_file`` the
                    rest of ``dataset.json``, ``ref_file`` the file of a branch or tag
``ledger``          the port for a dataset's refs and numbers: which versions exist, what a branch or tag names;
                    ``ref_log`` the file of its changes; ``ref_expr`` from an expression to a version; ``inventory``
                    the port for the datasets of a store: which there are, making and removing one
``notes``           what was said of a version later, apart from it
``history``         the dataset as its versions and branches know it
``snapshot``        one state of a dataset, readable by key and by array; ``zarrstore`` one as a store for zarr-python
``committed``       versions: how a key or a chunk is found in one
``working``         working copies: uncommitted files over a version, and what hides what
``commit``          from a working copy or an import to a version, its place on a branch, and recovery after a crash
``retention``       which versions and bytes stay: dropping versions, and taking away what only those show
``combine``         merge, cherry-pick, revert, rebase, restore, mv: what one line of history changed, on another
``branch_actions``  commit, discard, update, publish, combine, by this process or by the mount that holds the branch,
                    which ``remote_commit`` asks; ``commit_request`` a commit in words; ``transaction`` a block
                    that is one version or nothing;
                    ``branch`` :class:`Branch`, the snapshot that can be written
``version_log``     the versions of a line of history that match what is asked; ``diff`` what differs between two
                    states, ``diff_report`` the same in words, ``blame`` who wrote what
``remotes``         other stores of a dataset: clone, fetch, pull and push
``dataset``         :class:`Dataset`: its versions, branches and tags, and how a ref becomes a snapshot
``catalog_file``    whether a file is the catalog of a store; ``directory_inventory`` a directory as an inventory, and
                    as a store; ``onlooker`` a store that is only read
``store``           :class:`Store`: opening one, and how datasets come and go; ``first_version`` a dataset that begins
                    empty
``check``           ``fsck``
"""
