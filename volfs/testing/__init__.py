"""The public test kit. Other projects that read or write volfs stores may use it as our own tests do; `docs/testing.md`
describes it.

``volumes``         made-up volumes: every kind of number, odd shapes, two to six axes
``small_store``     a store of two of them, with two versions and two branches
``model``           a reference model of a dataset: dictionaries of keys and bytes, and numpy for arrays
``memory_backend``  committed bytes in memory; ``backend_conformance`` what any backend must do, as tests to subclass
``memory_ledger``   refs and numbers in memory, ``memory_inventory`` datasets; ``ledger_conformance`` and
                    ``inventory_conformance`` what any of them must do
``kit``             real mounts, each in a process that never outlives the test; ``waiting`` for something to come true
``file_handles``    files by handle, as an NFS server opens them: to ask a mount for what the kernel has forgotten
"""
