"""What is where in a mount, decided here and only here: one module for a kind of directory, from the root down.

``root``          the root and its ``.volfs``: ``README.txt``, ``stats.json``, ``metrics``
``dataset``       a dataset; ``refs`` its ``versions/``, ``branches/`` and ``tags/``, ``diffs`` its ``diffs/``
``snapshot``      a version, or what a branch has in common with one; ``branch`` what it has besides
``control``       ``.volfs`` of a branch: ``commit``, ``discard``, ``update``, ``status.json``; a ``merge`` would be one
                  more row of its table of actions
``level``         a level of an image: ``info.json``, its axes, the way to its slices
``slices``        ``xy/``, ``xz/``, ``yz/``: a PNG, TIFF or NPY for each plane; ``branch_slices`` how a branch's are
                  written, and hidden once removed
``volume_files``  ``volume.tif`` and the like; ``cutouts`` boxes and oblique planes made by naming them; ``previews``
                  pictures that cannot be written, ``preview_slices`` those of ``preview/``
``thumbnails``    ``thumbnail.png`` of a snapshot or an image
``formats``       ``formats/``: N5, precomputed, Zarr v2 and others
``version_keys``  ``zarr/`` and ``files/`` of a version; ``branch_keys`` those of a branch
"""
