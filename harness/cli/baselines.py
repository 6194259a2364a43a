"""What each `harness baseline` command does, and the text that is printed."""

from pathlib import Path

from harness import baselines
from harness.arms import BaselineOrder, measure_baseline
from harness.artifacts import to_json
from harness.baselines import Kept
from harness.cli.console import Result
from harness.preflight import preflight_baseline
from harness.recipe import Request

_MIB = 1 << 20
_COLUMNS = "{:<12} {:<20} {:<12} {:<18} {:<16} {:>6} {:>9} {:>10}  {}"
_HEAD = ("key", "model", "suite", "engine", "measured", "items", "A/A flips", "size", "versions")
_KEY, _MODEL, _SUITE, _DAY = 12, 20, 12, 16
"""Widths of columns whose text may be longer."""


def add(request: Request) -> Result:
    """Measure a baseline, both runs of it whole."""
    job = preflight_baseline(request)
    order = BaselineOrder(job.engine, job.source.path, job.suite, job.inputs, rerun_share=1.0)
    folder = measure_baseline(order)
    return _shown("kept", baselines.find_baseline(folder.name))


def list_all() -> Result:
    """Say what the store holds."""
    found = baselines.kept_baselines()
    where = f"{len(found)} baselines in {baselines.store()}"
    rows = [_COLUMNS.format(*_HEAD), *map(_row, found)] if found else []
    values = {"store": str(baselines.store()), "baselines": [_values(kept) for kept in found]}
    return Result(text="\n".join([*rows, where]), values=values)


def export(key: str, out: Path) -> Result:
    """Write one baseline to one file."""
    kept = baselines.find_baseline(key)
    baselines.export_baseline(kept, out)
    size = out.stat().st_size
    text = f"{_line('exported', kept)}\nfile: {out} ({size / _MIB:.2f} MiB)"
    return Result(text=text, values=_values(kept) | {"file": str(out), "file_bytes": size})


def import_bundle(bundle: Path) -> Result:
    """Put one file into the store."""
    kept, is_new = baselines.import_baseline(bundle)
    return _shown("imported" if is_new else "already there, left as it is:", kept)


def remove(key: str) -> Result:
    """Remove one baseline."""
    kept = baselines.find_baseline(key)
    values = _values(kept)
    baselines.remove_baseline(kept.key)
    return Result(text=_line("removed", kept), values=values)


def _shown(verb: str, kept: Kept) -> Result:
    return Result(text=f"{_line(verb, kept)}\nfolder: {kept.folder}", values=_values(kept))


def _line(verb: str, kept: Kept) -> str:
    inputs = kept.entry.inputs
    return (
        f"{verb} {kept.key[:_KEY]}: {inputs.model} on suite {inputs.suite}, {_engine(kept)}, "
        f"{kept.entry.num_items} items, A/A flips {_flips(kept)}"
    )


def _row(kept: Kept) -> str:
    entry, inputs = kept.entry, kept.entry.inputs
    versions = ", ".join(f"{name} {inputs.versions.get(name)}" for name in ("harness", "lm_eval"))
    return _COLUMNS.format(
        kept.key[:_KEY],
        inputs.model[-_MODEL:],
        inputs.suite[:_SUITE],
        _engine(kept),
        entry.created[:_DAY].replace("T", " "),
        entry.num_items,
        _flips(kept),
        f"{kept.num_bytes / _MIB:.2f} MiB",
        versions,
    )


def _engine(kept: Kept) -> str:
    engine = kept.entry.inputs.engine
    return " ".join([engine.name, engine.version or "", engine.device]).replace("  ", " ")


def _flips(kept: Kept) -> str:
    rerun = kept.entry.rerun
    if rerun is None:
        return "not run"
    part = "" if rerun.share == 1 else f" of {rerun.share:.0%}"
    return f"{rerun.flip_rate:.2%}{part}"


def _values(kept: Kept) -> dict[str, object]:
    """Return an entry as JSON values."""
    entry, rerun = kept.entry, kept.entry.rerun
    return {
        "key": kept.key,
        "folder": str(kept.folder),
        "model": entry.inputs.model,
        "suite": entry.inputs.suite,
        "engine": entry.inputs.engine.name,
        "created": entry.created,
        "num_items": entry.num_items,
        "rerun_share": rerun.share if rerun else None,
        "rerun_flip_rate": rerun.flip_rate if rerun else None,
        "num_bytes": kept.num_bytes,
        "inputs": to_json(entry.inputs),
    }
