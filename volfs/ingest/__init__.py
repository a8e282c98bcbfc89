"""Ingest: what becomes a version from outside, read from the files that microscopes and programs write.

``readers``       one module per family of files; ``readers.open_source`` finds the right one
``source``        what every reader gives: a description, boxes of voxels, and a fingerprint of the files
``voxelsize``     ``40,4,4nm`` and the like
``arrange``       axes renamed and put into the order of OME-NGFF
``segmentation``  which sources are segmentations, and their labels as integers
``outline``       what an import would make
``plan``          chunk shapes, and the slabs and tiles that a volume is read in
``streaming``     one pass over a volume that writes all its levels
``importer``      the whole import: metadata, datasets, versions, errors
``demo``          the demonstration store; ``procedural`` the made-up tissue in it
"""
