"""Kinds of files, whichever directory has them.

``document``      a generated text or picture
``layout_file``   a file with a byte layout over voxels: read, and written in place
``staged_dir``    files of a branch that are written as a whole: slices, chunks of formats, temporary names
``key_handle``    an open key of a branch: a real file of the working copy
``computed_key``  a key whose bytes are computed from s0
``key_listing``   a listing of keys, kept from one page to the next
"""
