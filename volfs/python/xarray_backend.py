"""xarray's engine `volfs`: ``xarray.open_dataset("volfs://cells@v3/zarr/s0::/data/store")``.

Decided here: a level is a dataset of one variable, an image a tree. It is the entry point `volfs` of
``xarray.backends``. Not here: what they consist of (:mod:`volfs.python.labelled_array`), and what a URL means
(:mod:`volfs.python.fsspec_filesystem`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import xarray
from xarray.backends import BackendEntrypoint

from volfs.errors import NotFound
from volfs.python.fsspec_filesystem import PROTOCOL, voxels_at
from volfs.python.labelled_array import data_array
from volfs.volume.image import Image
from volfs.volume.level import Level


class VolfsBackend(BackendEntrypoint):
    """Opens a level as a dataset of one variable, an image as a tree."""

    description: ClassVar[str] = "Levels of images in volfs stores"
    open_dataset_parameters: ClassVar[tuple[str, ...]] = ("filename_or_obj", "drop_variables", "storage_options")
    supports_groups: ClassVar[bool] = True

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        return isinstance(filename_or_obj, str) and filename_or_obj.startswith(f"{PROTOCOL}://")

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        storage_options: dict[str, Any] | None = None,
    ) -> Any:
        found = voxels_at(filename_or_obj, storage_options)
        level = found[0] if isinstance(found, Image) and found.is_array else found
        if not isinstance(level, Level):
            raise NotFound(
                f"{filename_or_obj} is an image of the levels {', '.join(level)}: name one, or open a datatree"
            )
        return data_array(level).to_dataset().drop_vars(drop_variables or [], errors="ignore")

    def open_datatree(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        storage_options: dict[str, Any] | None = None,
        **others: Any,
    ) -> Any:
        nodes = self.open_groups_as_dict(
            filename_or_obj, drop_variables=drop_variables, storage_options=storage_options, **others
        )
        return xarray.DataTree.from_dict(nodes)

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        storage_options: dict[str, Any] | None = None,
        **others: Any,
    ) -> Any:
        found = voxels_at(filename_or_obj, storage_options)
        if not isinstance(found, Image):
            raise NotFound(f"{filename_or_obj} is a level, and no image: open it as a dataset")
        nodes = {f"/{name}": data_array(level).to_dataset() for name, level in found.items()}
        dropped = drop_variables or []
        return {
            "/": xarray.Dataset(),
            **{path: node.drop_vars(dropped, errors="ignore") for path, node in nodes.items()},
        }
