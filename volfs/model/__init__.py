"""Plain values that all rooms share: names, boxes, metadata, version graphs. No files, no store.

``names``     rules for names and messages; ``display`` shows text of strangers on a terminal
``refs``      how people write which dataset, version and path they mean
``graph``     the versions of one dataset: parents, and the chain along which one sees its changes; ``thinning`` which
              of them are too many
``box``       regions of voxels or of chunk coordinates, ``box_name`` as people write them; ``grid`` regular grids of
              chunks, and blocks of chunks
``metadata``  Zarr v3 node metadata; ``ngff`` multiscale images in it, ``units`` their units, ``facts`` what else a
              source said of an image
``public_mapping``  what objects show of themselves to Python: as mappings, and to ``dir()``
``extras``   what is said where an optional package is missing
``bounded_map``  the one kind of cache: a map within a bound, and the caches of one owner by name
``touch``     what a set of changes touches, and whether two sets collide
``three_way`` two sides of one base: values, JSON by key, text by line; ``name_lists`` metadata, and lists in it that
              merge as sets
"""
