"""The public test kit: volumes, stores and mounts for tests (:mod:`volfs.testing.kit`), and a reference model.

Other projects that read or write volfs stores may use it as our own tests do.
"""
