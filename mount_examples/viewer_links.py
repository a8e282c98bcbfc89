"""Print the addresses that open a mounted dataset in Neuroglancer and in Vizarr, when a web server shows the mount.

python mount_examples/viewer_links.py [DATASET_DIRECTORY] [--address URL_OF_THE_MOUNT]

See nginx/ and caddy/ for the web server. A page from https:// may read from the machine itself (127.0.0.1) or from a
server with a certificate of its own: choose viewers that you serve yourself with --neuroglancer and --vizarr.
"""

import argparse
import json
from pathlib import Path
from urllib.parse import quote

METRES = {"nanometer": 1e-9, "micrometer": 1e-6, "millimeter": 1e-3, "meter": 1.0}

options = argparse.ArgumentParser()
options.add_argument("dataset", nargs="?", type=Path, default=Path("demo/mnt/cells"))
options.add_argument("--address", default="http://127.0.0.1:8080")
options.add_argument("--version", help="such as v3, or a tag; the newest version if not given")
options.add_argument("--neuroglancer", default="https://neuroglancer-demo.appspot.com/")
options.add_argument("--vizarr", default="https://hms-dbmi.github.io/vizarr/")
given = options.parse_args()

facts = json.loads((given.dataset / "dataset.json").read_text())
# A tag or `latest` may come to mean another version: a link that is kept should name the version itself.
where = given.dataset / (f"tags/{given.version}" if given.version in facts["tags"] else "versions")
version = where.resolve().name if where.name != "versions" else given.version or facts["latest"]
root = f"{given.address.rstrip('/')}/{quote(facts['name'])}/versions/{version}"

for main in (image for image in facts["images"] if image["kind"] == "image"):
    source = f"{root}/zarr/{quote(main['path'])}".rstrip("/") + "/"
    layers = [{"name": main["path"] or facts["name"], "type": "image", "source": f"zarr://{source}"}]
    for labels in (image for image in facts["images"] if image["kind"] == "labels"):
        if labels["path"].startswith(f"{main['path']}/labels/".lstrip("/")):
            there = f"zarr://{root}/zarr/{quote(labels['path'])}/"
            name = labels["path"].rsplit("/", 1)[-1]
            layers.append({"name": f"{name} (labels)", "type": "segmentation", "source": there, "selectedAlpha": 0.35})

    # Neuroglancer's panels follow the order of `dimensions`: x runs across, y runs down, the rest after.
    state: dict[str, object] = {"layers": layers, "layout": "4panel"}
    axes = list(zip(main["axes"], main["voxel_size"], main["units"], main["shape"], strict=True))
    space = [axis for axis in reversed(axes) if axis[0] in "xyz"]
    if space and all(unit in METRES for _, _, unit, _ in space):
        state["dimensions"] = {name: [size * METRES[unit], "m"] for name, size, unit, _ in space}
        state["position"] = [length / 2 for *_, length in space]
        state["crossSectionScale"] = max(length for *_, length in space) / 400
    print(f"{main['path'] or facts['name']}, {version}")
    print(f"  Neuroglancer  {given.neuroglancer}#!{quote(json.dumps(state, separators=(',', ':')), safe='')}")
    print(f"  Vizarr        {given.vizarr}?source={quote(source, safe='')}")
    print(f"  by URL        {source}")
