"""Do the files agree with each other, and with what was exported?"""

from collections import Counter

from harness.artifacts import Check, Severity
from harness.models import INDEX
from harness.verify.contents import MANIFEST_FILE, Contents
from harness.verify.finding import finding


def shards_complete(contents: Contents) -> Check:
    """Ask whether every shard is a whole safetensors file."""
    problems = [shard.problem for shard in contents.shards if shard.problem]
    return finding(
        "shards-complete",
        problems,
        good=f"{len(contents.shards)} weight file(s), each as long as its header says",
        bad=f"{len(problems)} of {len(contents.shards)} weight file(s) damaged",
    )


def index_matches_shards(contents: Contents) -> Check:
    """Ask whether the index names every tensor, in the shard that holds it, and no other."""
    faults = _index_faults(contents)
    return finding(
        "index-matches-shards",
        faults,
        good=f"{len(contents.tensors)} tensors are where they should be",
        bad=f"{len(faults)} disagreements between the index and the weight files",
    )


def _index_faults(contents: Contents) -> list[str]:
    held = Counter(name for shard in contents.shards for name in shard.entries)
    faults = [f"{name} is in {n} files" for name, n in held.items() if n > 1]
    index, problem = contents.weights.weight_map, contents.weights.problem
    if problem is not None:
        return [f"{INDEX} is no index: it {problem.why}", *faults]
    if index is None:
        if len(contents.shards) > 1:
            faults.append(f"{len(contents.shards)} weight files and no {INDEX}")
        return faults
    present = {shard.name: shard for shard in contents.shards}
    absent = sorted(set(index.values()) - present.keys())
    faults += [f"{name} is missing" for name in absent]
    for name, where in index.items():
        shard = present.get(where)
        if shard is not None and shard.entries and name not in shard.entries:
            faults.append(f"{name} is not in {where}")
    for shard in contents.shards:
        faults += [
            f"{name} is in {shard.name} and not in the index"
            for name in shard.entries
            if index.get(name) != shard.name
        ]
    return faults


def weight_files_listed(contents: Contents) -> Check:
    """Ask for weight files that are no part of the model: most engines leave them alone."""
    weights = contents.weights
    return finding(
        "weight-files-listed",
        weights.stray_lines,
        good="no weight file lies beside those of the model",
        bad=f"{len(weights.stray)} weight file(s) are no part of the model and were not checked",
        severity=Severity.WARNING,
    )


def manifest_matches_files(contents: Contents) -> Check:
    """Ask whether any file changed since the export wrote down its hashes."""
    manifest = contents.manifest or {}
    broken = {shard.name for shard in contents.shards if shard.problem}
    faults = []
    for name, expected in manifest.items():
        if not (contents.directory / name).is_file():
            faults.append(f"{name} is missing")
        elif name in broken or contents.hashes.get(name, expected) != expected:
            faults.append(f"{name} has changed")
    good = f"{len(manifest)} files are as they were exported"
    return finding(
        "files-match-manifest",
        faults,
        good=good if contents.manifest is not None else f"no {MANIFEST_FILE}, nothing to compare",
        bad=f"{len(faults)} of {len(manifest)} files are not as they were exported",
    )
