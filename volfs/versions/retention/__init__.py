"""Which versions and bytes stay: dropping versions, and taking away what only dropped ones show.

In two steps, days apart. A version is *retired*: it is listed no more, by nobody, and all its bytes are there still.
After the grace its bytes go, those that no kept version shows; from then on they are *absent*.

``roots``        the versions that must stay, and why: refs, their log, uncommitted changes
``shown``        the payloads of dropped versions that others show
``reclamation``  the second step, of one version: files removed, holes punched in shards, and what is told of it
``collector``    both steps over a dataset: ``volfs rm DATASET@vN`` and ``volfs gc``

What is kept of a version that was dropped, and how others learn of it, is said by
:mod:`volfs.versions.commit.retired_list`; what of a version is absent by :mod:`volfs.versions.committed.absences`.
"""
