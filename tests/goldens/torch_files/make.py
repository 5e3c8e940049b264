"""Write the files in this folder with PyTorch, and the values that PyTorch reads from them.

    python make.py        # in an environment with torch, numpy and safetensors

Every file is read back with torch.load; `expected.json` has the bytes of each tensor as torch reads
them, so that the tests do not need torch. Files that must be refused are only written.
"""

import argparse
import io
import json
import pathlib
import pickle
import struct
import sys
import warnings
import zipfile
from collections import OrderedDict

import numpy as np
import safetensors.torch
import torch

HERE = pathlib.Path(__file__).parent
WRITTEN_HERE = "loaded_by_torch.pth"  # by write_torch_file, from the tensors of dtypes_zip.pth
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32),
    *(torch.int16, torch.int8, torch.uint8, torch.bool),
]
UNSIGNED = [torch.uint16, torch.uint32, torch.uint64]


def name(dtype):
    return str(dtype).removeprefix("torch.")


def by_dtype(dtypes):
    values = torch.tensor([[0, 1, 2], [100, 3, 1]])
    return {name(dtype): values.to(dtype) for dtype in dtypes}


def views():
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    with_attribute = torch.nn.Parameter(torch.tensor([7.0, 8.0]))
    with_attribute.no_weight_decay = True
    plain_with_attribute = torch.tensor([9.0])
    plain_with_attribute.note = "kept on the tensor"
    parameter = torch.nn.Parameter(base[0].clone())
    return {
        "base": base,
        "rows": base[1:3],
        "columns": base[:, 1::2],
        "transposed": base.t(),
        "one_column": base[:, 5:],
        "expanded": torch.tensor([1.5]).expand(3, 4),
        "scalar": torch.tensor(5),
        "empty": torch.empty(0, 3),
        "empty_of_large": base[:0],
        "half_view": torch.arange(9, dtype=torch.bfloat16)[3:8:2],
        "parameter": parameter,
        "tied": parameter,
        "with_attribute": with_attribute,
        "plain_with_attribute": plain_with_attribute,
    }


class Own(torch.nn.Module):
    """Torch stores a pickled module's source in legacy files: let it be this one's."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x + self.weight


def module():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))


def training():
    network = module()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.ones(1, 2, 2, 2)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 5, 7])
    return {
        "it": 1,
        "weights": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "best": np.float64(0.5),
        "note": b"bytes",
        "seen": {1, 2},
        "dtype": torch.float32,
        "shape": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "nothing": None,
        "list": [torch.tensor([1]), "text", (torch.tensor([2]),)],
    }


def save(file, value, **options):
    torch.save(value, HERE / file, **options)


def big_endian(source, target):
    """The same checkpoint as a big-endian machine would have written it; float32 only."""
    with zipfile.ZipFile(HERE / source) as old, zipfile.ZipFile(HERE / target, "w") as new:
        for member in old.infolist():
            raw = old.read(member)
            if "/data/" in member.filename:
                raw = np.frombuffer(raw, "<f4").astype(">f4").tobytes()
            new.writestr(member.filename, b"big" if raw == b"little" else raw)


class OldPickler(pickle._Pickler):
    """As torch 0.3 on Python 2 with a GPU: byte strings, views of storages, the first builder."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_str(self, text):
        raw = text.encode("ascii")
        self.write(pickle.SHORT_BINSTRING + struct.pack("<B", len(raw)) + raw)
        self.memoize(text)

    dispatch[str] = save_str

    def persistent_id(self, value):
        return value.fields if isinstance(value, OldStorage) else None


class OldStorage:
    def __init__(self, key, numel, view):
        self.fields = ("storage", torch.cuda.FloatStorage, key, "cuda:0", numel, view)


class OldTensor:
    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return torch._utils._rebuild_tensor, self.arguments


class OldOrderedDict:
    def __init__(self, items):
        self.items = items

    def __reduce__(self):
        return OrderedDict, ([list(item) for item in self.items],)


def old_legacy(file):
    root = torch.arange(10, dtype=torch.float32)
    whole = OldStorage("94000000000001", 10, None)
    part = OldStorage("94000000000001", 10, ("94000000000002", 4, 5))
    value = OldOrderedDict(
        [
            ("whole", OldTensor(whole, 0, (2, 5), (5, 1))),
            ("part", OldTensor(part, 1, (2, 2), (2, 1))),
        ]
    )
    out = io.BytesIO()
    for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(header, out, protocol=2)
    OldPickler(out, protocol=2).dump(value)
    OldPickler(out, protocol=2).dump(["94000000000001"])
    out.write(struct.pack("<q", 10) + root.numpy().tobytes())
    (HERE / file).write_bytes(out.getvalue())


def tensors_of(value, key=""):
    if isinstance(value, torch.Tensor):
        return {key or "tensor": value}
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value)
    else:
        return {}
    found = {}
    for child_key, child in children:
        found |= tensors_of(child, f"{key}.{child_key}" if key else str(child_key))
    return found


def recorded(tensor):
    raw = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return {"dtype": name(tensor.dtype), "shape": list(tensor.shape), "hex": raw.hex()}


def write_accepted():
    legacy = {"_use_new_zipfile_serialization": False}
    save("dtypes_zip.pth", by_dtype(DTYPES + UNSIGNED))
    save("dtypes_legacy.pth", by_dtype(DTYPES), **legacy)
    save("views_zip.pth", views())
    save("views_legacy.pth", views(), **legacy)
    save("training_zip.pth", training())
    save("training_legacy.pth", training(), **legacy)
    save("protocol5_zip.pth", training(), pickle_protocol=5)
    save("protocol4_legacy.pth", training(), pickle_protocol=4, **legacy)
    save("bare_tensor.pt", torch.tensor([1.0, 2.0]))
    save("little_endian.pth", by_dtype([torch.float32]))
    big_endian("little_endian.pth", "big_endian.pth")
    (HERE / "little_endian.pth").unlink()
    torch.serialization.set_crc32_options(False)
    save("no_checksums.pth", by_dtype([torch.float32]))
    torch.serialization.set_crc32_options(True)
    old_legacy("old_legacy.pth")
    safetensors.torch.save_file(by_dtype(DTYPES + UNSIGNED), HERE / "dtypes.safetensors")


def write_refused():
    save("refused_namespace.pth", {"model": views(), "args": argparse.Namespace(lr=0.1)})
    save("refused_module_zip.pth", Own())
    save("refused_module_legacy.pth", Own(), _use_new_zipfile_serialization=False)
    save("refused_quantised.pth", {"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)})
    save("refused_sparse.pth", {"w": torch.eye(3).to_sparse()})
    save("refused_complex.pth", {"w": torch.ones(2, dtype=torch.complex64)})
    save("refused_float8.pth", {"w": torch.ones(2).to(torch.float8_e4m3fn)})
    save("refused_negated.pth", {"w": torch._neg_view(torch.ones(2))})
    save("refused_array.pth", {"w": np.ones(3)})
    torch.jit.script(Own()).save(str(HERE / "refused_script.pt"))


def checkpoints():
    return sorted([*HERE.glob("*.pt*"), *HERE.glob("*.safetensors")])


def main():
    warnings.simplefilter("ignore")
    for old in checkpoints():
        if old.name != WRITTEN_HERE:
            old.unlink()
    write_accepted()
    write_refused()
    expected = {}
    for path in checkpoints():
        if path.name.startswith("refused"):
            continue
        if path.suffix == ".safetensors":
            value = safetensors.torch.load_file(path)
        else:
            ours = path.name == WRITTEN_HERE
            value = torch.load(path, weights_only=ours, mmap=ours, map_location="cpu")
        expected[path.name] = {key: recorded(t) for key, t in tensors_of(value).items()}
    text = json.dumps(expected, indent=1, sort_keys=True) + "\n"
    (HERE / "expected.json").write_text(text)
    print(f"{len(expected)} files, torch {torch.__version__}, Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
