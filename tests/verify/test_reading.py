"""What is found depends neither on the number of threads nor on how files and tensors are cut."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.artifacts import IntegrityReport
from harness.verify import compare, fitting, reading, scanned, verify
from harness.verify.hashing import Hashed
from harness.verify.reading import DataPass, Task, num_processes
from harness.verify.scan import Facts, facts_of
from harness.verify.shards import read_shard
from harness.verify.stored import StoredTensors
from tests.tiers import slow

CUTS = {
    "one thread": {"threads": 1},
    "many threads": {"threads": 16},
    "a stretch a tensor": {"threads": 5, "stretch": 1},
    "small pieces": {"threads": 2, "stretch": 1 << 12, "piece": 96, "items": 2048, "copied": 48},
}


@pytest.fixture(params=CUTS)
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Cut the work in another way."""
    cuts = CUTS[request.param]
    monkeypatch.setattr(reading, "num_cores", lambda: cuts["threads"])
    for module, constant, name in (
        (reading, "_STRETCH_BYTES", "stretch"),
        (reading, "_PIECE_BYTES", "piece"),
        (fitting, "_PIECE_ITEMS", "items"),
        (compare, "_COPIED_BYTES", "copied"),
    ):
        if name in cuts:
            monkeypatch.setattr(module, constant, cuts[name])
    return str(request.param)


def spoil(folder: Path) -> None:
    """Plant a fault in each fifth tensor of a checkpoint, one after another of another kind."""
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        for number, name in enumerate(sorted(tensors)[::5]):
            content = tensors[name].reshape(-1).view(torch.uint8)
            content[-1] ^= (0x01, 0x80, 0x7F)[number % 3]
        save_file(tensors, path)


@pytest.fixture(scope="module")
def spoilt(
    good_exports: dict[str, Path],
    tiny_qwen3_5_moe: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Path, IntegrityReport]]:
    """Good and spoilt checkpoints, and what is found in them."""
    folders = dict(good_exports)
    for qformat, folder in good_exports.items():
        folders[f"spoilt {qformat}"] = tmp_path_factory.mktemp("spoilt") / qformat
        shutil.copytree(folder, folders[f"spoilt {qformat}"])
        spoil(folders[f"spoilt {qformat}"])
    return {name: (path, verify(path, source=tiny_qwen3_5_moe)) for name, path in folders.items()}


@pytest.mark.parametrize("which", ["nvfp4", "fp8", "spoilt nvfp4", "spoilt fp8"])
@pytest.mark.usefixtures("cut")
def test_the_report_is_the_same_however_the_work_is_cut(
    spoilt: dict[str, tuple[Path, IntegrityReport]], tiny_qwen3_5_moe: Path, which: str
) -> None:
    folder, expected = spoilt[which]
    assert any(not check.passed for check in expected.checks) == which.startswith("spoilt")
    found = verify(folder, source=tiny_qwen3_5_moe)
    assert [c for c in found.checks if c not in expected.checks] == []
    assert found == expected


def many_weights(root: Path, num_weights: int) -> tuple[Path, Path]:
    """Return a source and a checkpoint in FP8 whose scales are three times too large."""
    source, folder = root / "source", root / "checkpoint"
    weight = torch.linspace(-1, 1, 64 * 64).reshape(64, 64).bfloat16()
    codes, scale = (weight.float() * 448).to(torch.float8_e4m3fn), torch.tensor(3 / 448)
    for path in (source, folder):
        path.mkdir()
        (path / "config.json").write_text("{}")
    names = [f"model.layers.{n}.mlp.down_proj" for n in range(num_weights)]
    for number, part in enumerate((names[::2], names[1::2])):
        shard = f"model-{number}.safetensors"
        save_file({f"{n}.weight": weight.clone() for n in part}, source / shard)
        stored: dict[str, Tensor] = {f"{n}.weight": codes.clone() for n in part}
        stored |= {f"{n}.weight_scale": scale.clone() for n in part}
        save_file(stored, folder / shard)
    return folder, source


@pytest.mark.usefixtures("cut")
def test_findings_lie_in_the_order_of_the_files_and_the_first_are_explained(tmp_path: Path) -> None:
    folder, source = many_weights(tmp_path, 40)
    checks = {check.id: check for check in verify(folder, source=source).checks}
    found = checks["weights-near-source"]
    assert found.num_faulty == 40
    entries = read_shard(folder / "model-0.safetensors").entries
    order = sorted((n for n in entries if n.endswith(".weight")), key=lambda n: entries[n].start)
    assert [e.split(".weight")[0].split(" ")[0] for e in found.examples] == [
        name.removesuffix(".weight") for name in order[:5]
    ]
    assert all("its scale is 3 times what it should be" in e for e in found.examples)


@pytest.fixture
@slow("three processes, each of which imports torch anew")
def verify_shared(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Path], IntegrityReport]:
    def run(folder: Path, source: Path) -> IntegrityReport:
        monkeypatch.setattr(scanned, "num_processes", lambda _: 3)
        return verify(folder, source=source)

    return run


def test_the_report_is_the_same_when_processes_share_the_work(
    tmp_path: Path, verify_shared: Callable[[Path, Path], IntegrityReport]
) -> None:
    folder, source = many_weights(tmp_path, 8)
    alone = verify(folder, source=source)
    assert verify_shared(folder, source) == alone
    assert alone.errors


def test_shares_make_up_the_whole(
    good_exports: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_STRETCH_BYTES", 1)
    shard = read_shard(good_exports["nvfp4"] / "model.safetensors")
    work = DataPass([Task(shard, Hashed.TENSORS)])

    def nothing(*_: object) -> None:
        return None

    with StoredTensors(good_exports["nvfp4"], (shard,)) as stored:
        whole = list(work.shards(stored, nothing))
        shares = [work.share(stored, nothing, number=n, count=3) for n in range(3)]
    assert min(map(len, shares)) > 1
    assert list(work.shards_of(shares)) == whole


def test_processes_are_begun_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "num_cores", lambda: 16)
    assert [num_processes(gib << 30) for gib in (0, 7, 20, 92)] == [1, 1, 5, 8]
    monkeypatch.setattr(reading, "num_cores", lambda: 2)
    assert num_processes(92 << 30) == 1


def test_only_some_misfits_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, source = many_weights(tmp_path, 8)
    monkeypatch.setattr(compare, "_MAX_EXPLAINED", 3)
    checks = {check.id: check for check in verify(folder, source=source).checks}
    explained = ["its scale is" in e for e in checks["weights-near-source"].examples]
    assert explained == [True, True, True, False, False]


def written(path: Path, tensors: dict[str, tuple[int, bytes]], size: int) -> bytes:
    """Write bytes as tensors at given places of the data; return the file."""
    header = {
        name: {"dtype": "U8", "shape": [len(data)], "data_offsets": [at, at + len(data)]}
        for name, (at, data) in tensors.items()
    }
    text = json.dumps(header).encode()
    body = bytearray(size)
    for at, data in tensors.values():
        body[at : at + len(data)] = data
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path.read_bytes()


def hash_of(path: Path, hashed: Hashed) -> str | None:
    shard = read_shard(path)
    with StoredTensors(path.parent, (shard,)) as stored:
        (found,) = DataPass([Task(shard, hashed)]).shards(stored, lambda _name, _entry: None)
    return found.hash


@pytest.mark.usefixtures("cut")
def test_both_hashes_are_those_of_their_definition(tmp_path: Path) -> None:
    a, b, c = (bytes(range(n, n + 50)) * 9 for n in (1, 2, 3))
    content = written(tmp_path / "x.safetensors", {"c": (900, c), "a": (0, a), "b": (450, b)}, 1350)
    head = content[: len(content) - 1350]
    leaves = b"".join(xxhash.xxh3_128_digest(part) for part in (head, a, b, c))
    path = tmp_path / "x.safetensors"
    assert hash_of(path, Hashed.TENSORS) == xxhash.xxh3_128_hexdigest(leaves)
    assert hash_of(path, Hashed.FILE) == hashlib.sha256(content).hexdigest()
    assert hash_of(path, Hashed.NOTHING) is None


@pytest.mark.usefixtures("cut")
def test_gaps_overlaps_and_what_lies_behind_are_hashed_once(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {"a": (10, b"a" * 300), "b": (200, b"b" * 300), "c": (700, b"c" * 9)}
    content = written(path, tensors, 1200)
    assert hash_of(path, Hashed.FILE) == hashlib.sha256(content).hexdigest()
    meant = hash_of(path, Hashed.TENSORS)
    for place in (len(content) - 1195, len(content) - 600, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert hash_of(path, Hashed.TENSORS) != meant


def stacks(root: Path) -> tuple[Path, Path]:
    """Return a source with a tensor an expert, and a checkpoint that stacks them unquantized."""
    source, folder = root / "source", root / "checkpoint"
    seed = torch.Generator().manual_seed(0)
    experts = {
        f"model.layers.0.mlp.experts.{n}.{p}.weight": torch.randn(5, 7, generator=seed)
        for n in range(3)
        for p in ("gate_proj", "up_proj")
    }
    for path in (source, folder):
        path.mkdir()
        (path / "config.json").write_text("{}")
    save_file(experts, source / "model.safetensors")
    stack = torch.stack(list(experts.values())).reshape(3, 10, 7)
    stored = {"model.layers.0.mlp.experts.gate_up_proj": stack.bfloat16()}
    save_file(stored, folder / "model.safetensors")
    return folder, source


@pytest.mark.usefixtures("cut")
def test_each_expert_of_a_stack_is_held_against_its_own_source(tmp_path: Path) -> None:
    folder, source = stacks(tmp_path)
    path = folder / "model.safetensors"
    (name,) = stored = load_file(path)

    def failed() -> Iterator[str]:
        return (c.id for c in verify(folder, source=source).checks if not c.passed)

    assert "unquantized-tensors-copied" not in failed()
    for expert, row in ((0, 0), (1, 9), (2, 9)):
        changed = stored[name].clone()
        changed[expert, row, -1] *= 1.1
        save_file({name: changed}, path)
        assert "unquantized-tensors-copied" in failed()


def test_codes_beside_nan_are_seen_wherever_a_piece_ends() -> None:
    codes = np.array([0x10, 0x7F, 0x7E, 0x81, 0xFF, 0x20], np.uint8)
    expected = Facts(num_non_finite=2, largest_code=0x7E)
    for cut in range(1, codes.size):
        parts = [facts_of("x.weight", "F8_E4M3", part) for part in np.split(codes, [cut])]
        assert parts[0].merged(parts[1]) == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "-nan"])
def test_every_value_that_is_no_number_is_counted(dtype: torch.dtype, value: str) -> None:
    largest, name = torch.finfo(dtype).max, {2: "F16", 4: "F32", 8: "F64"}[dtype.itemsize]
    name = "BF16" if dtype is torch.bfloat16 else name
    values = torch.tensor([largest, -largest, 0.0, -0.0, 1e-40], dtype=dtype)
    content = values.view(torch.uint8).numpy()
    assert facts_of("x.weight", name, content).num_non_finite == 0
    values[3] = float(value)
    assert facts_of("x.weight", name, content).num_non_finite == 1
