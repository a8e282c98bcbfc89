"""A store by HTTP and WebDAV: the same tree as a mount's, for whoever has no mount.

``web_service``     a server from start to end: the store, the tree, the listener, the signals
``listener``        sockets and connections, on hypercorn; one that fails or stalls ends itself alone
``application``     one request from its method to its answer
``credentials``     who asks, by token or password, and what he may do
``http_exchange``   a request and its answer, over ASGI
``http_status``     the status for each error of the tree
``url_paths``       from a URL to names and back
``places``          from names to an inode, following links inside the tree; ``entry_cache`` those looked up lately
``validators``      ETag, Last-Modified, Cache-Control; conditional requests
``byte_ranges``     the Range header
``media_types``     Content-Type by name
``file_body``       sending a file or ranges of it
``folder_listing``  directories as HTML and JSON
``authoring``       the methods of WebDAV; ``dav_xml`` its documents, ``dav_properties`` those of files
``dav_locks``       locks of its clients, and the conditions by which they show them
``tree_changes``    uploads, and what is done to whole directories
``browser_page``    the files of the page for people, ``page/``, and of Neuroglancer
``viewers``         what ``volfs open`` gives to a browser or another program

As thin as :mod:`volfs.fuse`: nothing here knows what the tree holds. No kernel, no FUSE and no pyfuse3 are needed.
Nothing is imported here: the command reads its help without loading a server.
"""
