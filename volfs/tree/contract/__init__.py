"""The contract between a tree and its front ends: a mount, an export, a test.

``api``         the requests of a tree, and the notices that it needs its front end to pass on to the kernel
``attrs``       attributes of an inode, and how long a client may keep them
``time_limit``  which requests only look, and so give up after a while
``meter``       what was asked, how long the answers took, what is under way
"""
