"""Ingest: what becomes a version from outside, read from the files that microscopes and programs write.

``source``     what every reader gives: a description, boxes of voxels, and a fingerprint of the files
``outline``    what an import would make
``readers``    one module per family of files; ``readers.open_source`` finds the right one
``arrange``    axes renamed and put into the order of OME-NGFF
``voxelsize``  ``40,4,4nm`` and the like
``plan``       chunk shapes, and the slabs and tiles that a volume is read in
``streaming``  one pass over a volume that writes all its levels
``importer``   the whole import: metadata, datasets, versions, errors
``procedural`` a made-up tissue for demonstrations
"""
