"""What programs in Python find beside the objects themselves: pages in notebooks, and plugins of other libraries.

``face``            what stores are given, so that their objects know their images and how they are shown
``html``            a store, dataset, snapshot, image or level as a notebook shows it
``labelled_array``  levels as xarray's arrays, images as its trees
``fsspec_filesystem``  keys by URL, for all that opens files by fsspec: the entry point of ``fsspec.specs``
``napari_layers``      images as napari's layers, labels saved into a branch: what ``napari.yaml`` names
``xarray_backend``     levels and images by URL, for xarray: the entry point of ``xarray.backends``
"""
