"""Ingest: what becomes a version from outside, read from the files that microscopes and programs write.

``readers``        one module per family of files; ``readers.open_source`` finds the right one
``source``         what every reader gives: a description, boxes of voxels, and a fingerprint of the files
``voxel_size``     ``40,4,4nm`` and the like
``axis_numbers``   how many numbers a user gives for axes
``axis_order``     axes renamed and put into the order of OME-NGFF
``segmentation``   which sources are segmentations, and their labels as integers
``outline``        what an import would make
``chunk_plan``     chunk shapes, and the slabs and tiles that a volume is read in
``volume_stream``  one pass over a volume that writes all its levels
``importer``       the whole import: metadata, datasets, versions, errors
``demo_store``     the demonstration store; ``tissue`` the made-up tissue in it
"""
