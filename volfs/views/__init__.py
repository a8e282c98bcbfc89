"""Views: virtual files over the voxels of an image.

What a file looks like, byte for byte, is decided here, from metadata alone; where voxels come from is not (see
``VoxelSource`` in :mod:`volfs.views.layout`, which a level of ``volfs.volume`` satisfies), nor which directory a file
stands in (``volfs.tree``).

``layout``     the algebra of extents: exact size, reading of any range, writing in place; once, for all formats
``frames``     zlib streams and checksums in that algebra; ``samples`` every n-th voxel of a box
``flat``       which layouts are so simple that C can put their files together
``plane``      what one slice shows: which box, which way up, pixel size
``slices``     names, orientation and formats of slice files; the one door for the tree
``png`` ``tiff`` ``npy``  one format each: metadata to extents, and a whole written file back to voxels
``png_filters`` ``decompressors`` ``tiff_directory`` ``tiff_decode``  their parts: filters of PNG, strict decoders, tags
``volume``     what one volume file shows; ``volumes`` its formats, ``ome`` the OME-XML in a TIFF
``folder``     formats that are directories; ``folders`` which there are
``cutout``     boxes of a level as files made by naming them
``interpolation`` ``oblique_planes`` ``iso_slices``  pictures whose pixels lie between the voxels
``colour`` ``label_colours``  how people see voxels: intensities in a window, labels in their colours or pseudo-colours
``jpeg`` ``thumbnail`` ``eight_bits`` ``difference``  pictures of that: rendered whole; as slices of exact size; what
               differs between two versions
``omero``      what the image's metadata say of its channels: names and windows
``documents``  ``version.json``, ``info.json``, ``README.txt`` and the other generated texts
"""
