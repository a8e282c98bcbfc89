"""The directory tree of a mounted store, without any mount.

``api``     what an adapter calls, and what it must offer
``tree``    :class:`Tree`: from requests to nodes
``node``    what every inode can do; the node modules say what is where: ``root`` ``dataset`` ``refs`` ``snapshot``
            ``levels`` ``planes`` ``keys`` for what is read, ``branch`` ``branchkeys`` ``edits`` ``control`` for what is
            written
``room``    a branch while it is mounted; ``stages`` ``stagehandle`` ``targets`` its half-written slices, ``leftovers``
            those of an earlier daemon
``orders``  what control files ask for; ``draft`` a message that is being written, ``openers`` who has it open
``inodes`` ``handles`` ``reading`` ``generated`` ``rendering`` ``derived`` ``places``  what they share
"""

from volfs.tree.api import NoNotifier, Notifier, OpenFile, TreeApi, TreeOptions
from volfs.tree.attrs import Attr, SetAttr
from volfs.tree.tree import Tree

__all__ = ["Attr", "NoNotifier", "Notifier", "OpenFile", "SetAttr", "Tree", "TreeApi", "TreeOptions"]
