"""Other stores of the same dataset: clone, fetch, pull and push.

``message_frames``    two volfs talk over a pair of streams: messages and data, bounded and with checksums
``questions``         what a store that receives asks, and :class:`Peer`, which asks it
``supplier``          the answers of a store that has versions
``missing_versions``  which versions are lacking, parents first
``arrival``           the files of one version as they come, proved; ``local_form`` the parts that are written anew
                      because numbers differ between stores
``transfer``          all of it: versions arrive, and exist
``wanted_payloads``   which payloads a part of a dataset has; ``supplement`` those that were left out, brought in;
                      ``partial_clone`` what a fetch brings into a clone of parts
``address``           where a remote is; ``connection`` a process that serves it
``travelling_notes``  notes on versions, from one store to the other
``exchange``          fetch, pull and push: which refs are meant, and that they move last; ``clone`` a dataset made of
                      another store's
``server``            the served end
``repair``            payloads that are lost here, brought back
"""
