"""The Hub: what to download of a repository, and downloading it.

    manifest.py   which files of a repository a model needs
    client.py     asking the Hub, or its shared cache where it cannot be asked; its refusals
    transfer.py   one file: gone on with, tried again, checked
    download.py   all of them, into the shared cache or a folder; whether the disk holds them
    cache.py      the shared cache of Hugging Face: what lies where, and removing it

It does not know what becomes of the files.
"""

from gptoss_mlx.hub.client import Hub, quieten, reach, read_manifest
from gptoss_mlx.hub.download import Need, check_space, download, missing_bytes, place_of
from gptoss_mlx.hub.manifest import Manifest, RemoteFile, Source
from gptoss_mlx.hub.transfer import Watcher, is_right

__all__ = [
    "Hub",
    "Manifest",
    "Need",
    "RemoteFile",
    "Source",
    "Watcher",
    "check_space",
    "download",
    "is_right",
    "missing_bytes",
    "place_of",
    "quieten",
    "reach",
    "read_manifest",
]
