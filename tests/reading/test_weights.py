"""The reader of headers, held against the safetensors package."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from harness.errors import ReasonCode, UnreadableError
from harness.reading import DTYPE_BITS, examine_weights, read_weights_header

A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
B = {"dtype": "U8", "shape": [4], "data_offsets": [8, 12]}


def write(path: Path, header: object, data: bytes = b"\0" * 12) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def is_opened(path: Path) -> bool:
    try:
        with safe_open(path, framework="np"):
            return True
    except (SafetensorError, OSError):
        return False


def test_a_whole_file_is_read_in_the_order_of_its_bytes(tmp_path: Path) -> None:
    header = read_weights_header(
        write(tmp_path / "a", {"b": B, "__metadata__": {"x": "y"}, "a": A})
    )
    assert list(header.tensors) == ["a", "b"]
    assert header.tensors["b"].shape == (4,)


HOSTILE = {
    "overlap": {"a": A, "b": {**B, "data_offsets": [4, 8]}},
    "gap": {"a": A, "b": {**B, "data_offsets": [9, 13]}},
    "negative dimension": {"a": A, "b": {**B, "shape": [-4]}},
    "two negative dimensions": {"a": A, "b": {**B, "shape": [-2, -2]}},
    "textual dimension": {"a": A, "b": {**B, "shape": ["4"]}},
    "float dimension": {"a": A, "b": {**B, "shape": [4.0]}},
    "bool dimension": {"a": A, "b": {**B, "shape": [4, True]}},
    "textual offset": {"a": A, "b": {**B, "data_offsets": ["8", "12"]}},
    "float offset": {"a": A, "b": {**B, "data_offsets": [8.0, 12]}},
    "bool offset": {"a": {"dtype": "U8", "shape": [1], "data_offsets": [False, True]}},
    "three offsets": {"a": A, "b": {**B, "data_offsets": [8, 12, 12]}},
    "offsets turned round": {"a": A, "b": {**B, "data_offsets": [12, 8]}},
    "numeric metadata": {"__metadata__": {"a": 1}, "a": A, "b": B},
    "metadata that is a list": {"__metadata__": [], "a": A, "b": B},
    "unknown dtype": {"a": A, "b": {**B, "dtype": "U9"}},
    "dtype that is a number": {"a": A, "b": {**B, "dtype": 8}},
    "no dtype": {"a": A, "b": {"shape": [4], "data_offsets": [8, 12]}},
    "product beyond 64 bits": {
        "a": A,
        "b": {**B, "shape": [2**40, 2**40, 0], "data_offsets": [8, 8]},
    },
    "dimension beyond 64 bits": {"a": A, "b": {**B, "shape": [2**64, 0], "data_offsets": [8, 8]}},
    "half a byte": {"a": A, "b": {"dtype": "F4", "shape": [7], "data_offsets": [8, 12]}},
    "tensor that is a list": {"a": A, "b": [B]},
    "list": [A],
    "duplicate name": b'{"a":%s,"a":%s}' % ((json.dumps(A).encode(),) * 2),
    "duplicate field": b'{"a":{"dtype":"U8","dtype":"U8","shape":[12],"data_offsets":[0,12]}}',
    "minus zero": b'{"a":{"dtype":"U8","shape":[12],"data_offsets":[-0,12]}}',
    "leading space": b' {"a":{"dtype":"U8","shape":[12],"data_offsets":[0,12]}}',
    "byte order mark": b'\xef\xbb\xbf{"a":{"dtype":"U8","shape":[12],"data_offsets":[0,12]}}',
    "not UTF-8": b'{"\xff":{"dtype":"U8","shape":[12],"data_offsets":[0,12]}}',
    "half a surrogate": rb'{"\ud800":{"dtype":"U8","shape":[12],"data_offsets":[0,12]}}',
    "NaN": b'{"a":{"dtype":"U8","shape":[12],"data_offsets":[0,12],"x":NaN}}',
    "deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "number of 5000 digits": b'{"a":{"dtype":"U8","shape":['
    + b"9" * 5000
    + b'],"data_offsets":[0,12]}}',
    "text behind": b'{"a":{"dtype":"U8","shape":[12],"data_offsets":[0,12]}} {}',
    "empty": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_lies_in_a_header_is_refused_and_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "model.safetensors", HOSTILE[name])
    with pytest.raises(
        UnreadableError, match=r"model\.safetensors' is no valid safetensors file: "
    ):
        read_weights_header(path)


@pytest.mark.parametrize("extra", [-1, 1])
def test_a_file_of_another_length_than_its_header_says_is_refused(
    tmp_path: Path, extra: int
) -> None:
    path = write(tmp_path / "m", {"a": A, "b": B}, b"\0" * (12 + extra))
    header = examine_weights(path)
    assert header.problem is not None
    assert (header.problem.reason is ReasonCode.TRUNCATED_FILE) == (extra < 0)
    assert list(header.tensors) == ["a", "b"]


@pytest.mark.parametrize("size", [0, 7, 8, 20])
def test_a_file_that_ends_in_its_header_is_cut_off(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "m", {"a": A, "b": B})
    path.write_bytes(path.read_bytes()[:size])
    problem = examine_weights(path).problem
    assert problem is not None
    assert problem.reason is ReasonCode.TRUNCATED_FILE


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    (tmp_path / "m").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    with pytest.raises(UnreadableError, match="Git LFS pointer"):
        read_weights_header(tmp_path / "m")


def test_a_header_may_not_be_longer_than_100_mb(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes((100_000_001).to_bytes(8, "little") + b"{}")
    with pytest.raises(UnreadableError, match="its header's length"):
        read_weights_header(tmp_path / "m")


NUMBERS: st.SearchStrategy[Any] = st.one_of(
    st.integers(-2, 16),
    st.sampled_from([2**31, 2**62, 2**63, 2**64 - 1, 2**64, 10**30]),
    st.sampled_from([0.0, 4.0, "4", True, None, [], {}]),
)
SHAPES = st.one_of(st.lists(st.integers(0, 4), max_size=4), st.lists(NUMBERS, max_size=4), NUMBERS)
OFFSETS = st.one_of(
    st.lists(st.integers(0, 16), min_size=2, max_size=2), st.lists(NUMBERS, max_size=3)
)
DTYPES = st.one_of(st.sampled_from([*DTYPE_BITS]), st.sampled_from(["f32", "U9", "", 1, None]))
TENSOR: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {"dtype": DTYPES, "shape": SHAPES, "data_offsets": OFFSETS},
    optional={"more": st.sampled_from([1, -1, None, 1.5, [], {}])},
)
METADATA = st.one_of(
    st.none(),
    st.dictionaries(st.text(max_size=3), st.one_of(st.text(max_size=3), NUMBERS), max_size=2),
)


@st.composite
def plausible(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A header that is right, or nearly so, and its data."""
    header: dict[str, Any] = {}
    position = 0
    for name in draw(st.lists(st.text(max_size=4), unique=True, max_size=4)):
        dtype, shape = (
            draw(st.sampled_from([*DTYPE_BITS])),
            draw(st.lists(st.integers(0, 4), max_size=3)),
        )
        num_bits = DTYPE_BITS[dtype]
        for size in shape:
            num_bits *= size
        end = position + num_bits // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    for name in draw(st.lists(st.sampled_from([*header, "x"]), max_size=1)):
        header[name] = draw(TENSOR)
    if draw(st.booleans()):
        header["__metadata__"] = draw(METADATA)
    names = draw(st.permutations(list(header)))
    text = json.dumps({name: header[name] for name in names}, ensure_ascii=draw(st.booleans()))
    text = text.replace("Infinity", "1e999").replace("NaN", "1")
    data = b"\0" * max(0, position + draw(st.sampled_from([0, 0, 0, 0, 1, -1])))
    return text.encode("utf-8", "surrogatepass") + b" " * draw(st.integers(0, 2)), data


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(made=plausible())
def test_what_the_package_refuses_is_refused_and_what_is_accepted_it_opens(
    tmp_path: Path, made: tuple[bytes, bytes]
) -> None:
    path = write(tmp_path / "m", *made)
    assert not (examine_weights(path).problem is None and not is_opened(path))


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(made=plausible())
def test_what_the_package_opens_is_read_but_for_stricter_rules(
    tmp_path: Path, made: tuple[bytes, bytes]
) -> None:
    path = write(tmp_path / "m", *made)
    problem = examine_weights(path).problem
    stricter = ("twice", "negative or too large", "surrogate")
    if is_opened(path) and problem is not None:
        assert any(word in problem.why for word in stricter), problem
