"""What programs in Python find beside the objects themselves: pages in notebooks, and plugins of other libraries.

``face``  what stores are given, so that their objects know their images and how they are shown
``html``  a store, dataset, snapshot, image or level as a notebook shows it
"""
