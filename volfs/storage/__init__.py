"""The files of a store, byte by byte. The version that they belong to is decided above.

``store_layout``   where everything lies: paths only
``mount_table``    which filesystem that is; ``state`` the directories of a user and machine outside the store
``files``          files that survive a loss of power, and locks; ``crash`` points at which a test ends the process
``trash``          removing whole directories
``json_document``  small JSON documents with a checksum; ``claim`` which process is at work on something half made,
                   ``stage_record`` the record in front of a file that is being written over a slice
``compressors``    bytes to bytes; ``chain`` a chain of codecs, ``sharding_codec`` Zarr's "sharding_indexed" among them,
                   ``codec`` the chain of one array
``backend``        the port for what is committed: objects under keys; ``directory_backend`` a directory as one
``payload``        reading stored bytes with proof that they are what was written; ``decode_list`` many of them at once,
                   ``payload_maker`` many made at once; ``shards`` files in which a commit packs many chunks
``manifest``       the record of what one version changed
``reserve``        space kept for the day when the disk is full
"""
