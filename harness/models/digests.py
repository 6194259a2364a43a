"""sha256 of a checkpoint's files: its identity.

A baseline is found again and a stage is skipped by this digest, so it covers contents, not names
or dates. Hashing 70 GB takes a minute, so each file's hash is remembered in the user's cache
folder under the file's path, size, modification time and inode; a file that was replaced or
rewritten is hashed again.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.artifacts import digest_of, write_atomically

MANIFEST_FILE = "harness.json"
_NUM_THREADS = min(16, os.cpu_count() or 1)
_log = logging.getLogger("harness.models")


def digest_files(files: Mapping[str, Path]) -> str:
    """Return the sha256 over names and contents of files, as hexadecimal."""
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        hashes = list(pool.map(_sha256, files.values()))
    return digest_of(dict(zip(files, hashes, strict=True)))


def digest_folder(folder: Path) -> str:
    """Return the sha256 over the names and contents of a checkpoint's files, as hexadecimal.

    Unlike a model's digest it covers all that lies there; left out is the manifest of whoever
    exported it, which holds this very digest.
    """
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST_FILE]
    return digest_files({str(file.relative_to(folder)): file for file in files})


def _sha256(file: Path) -> str:
    """Return the sha256 of `file`, from the cache where it is known."""
    stat = file.stat()
    key = digest_of(str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino)
    cached = _cache_folder() / key
    try:
        known = json.loads(cached.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    if isinstance(known, str):
        return known
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cached, json.dumps(sha256))
    except OSError as error:
        _log.info("models: the digest of '%s' cannot be remembered: %s", file.name, error)
    return sha256


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "harness" / "digests"
