"""Versions, which never change: from a key to the payload that holds its bytes.

``version``        :class:`Version`, the snapshot: names from the catalog's entries, chunks from its index blocks
``array``          an array of one: the payload of each chunk, and when its parts last changed
``lookups``        index blocks and times of change, remembered for all versions of a store
``reshape``        what a change of metadata does to times of change
``version_files``  a version's own directory, read without the catalog; ``content_id`` the hash of all that it says;
                   ``absences`` payloads that are known and not here
"""
