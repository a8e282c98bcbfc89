"""The images of one snapshot, as directories and formats want to see them.

``image_index``      where images appear in the hierarchy, and the levels of each
``computed_levels``  keys of levels that follow s0, and the bytes they have
``array_views``      arrays and images for the formats that are directories
"""
