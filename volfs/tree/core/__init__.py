"""What all directories and files of a tree are made of, whatever they show.

``node``           an inode: a directory, a file, a link
``context``        what all nodes of a tree share: threads, caches, options
``inodes``         from a path to a number and back
``ownership``      owner and mode of every inode, as its dataset says
``rendering``      a rendered document in one state
``open_files``     open files, and the table of them; ``openers`` which processes of the machine have one open
``layout_handle``  an open file that is read through its byte layout, or as it is stored
``lender``         decoded planes of versions, lent to what answers reads of slices without Python
``ports``          Protocols by which these know what is above: a branch, a snapshot, a file with unstored bytes
"""
