"""Readers of foreign checkpoint files, which give `{source name: ndarray}` and run nothing the files contain."""

import zipfile
from pathlib import Path

import numpy as np
import safetensors.numpy

from lesion.errors import UserError
from lesion.weights import keras_files, matlab_files, torch_files

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ZIP_MAGIC = b"PK\x03\x04"
PICKLE_MAGIC = b"\x80\x02"
ONNX_FLOATS = (1, 10, 11, 16)  # float32, float16, float64, bfloat16


def read(path: Path | str) -> dict[str, np.ndarray]:
    """Reads a checkpoint, whose format is recognised by its content, not its name.

    Args:
        path: a file: torch's `.pth` (zip or old format), `.safetensors`, Keras' `.h5`, `.weights.h5` or `.keras`, ONNX,
            or MatConvNet's `.mat`.

    Returns:
        The arrays under the source's names and in its layout; names are `layer/leaf` for Keras, see `keras_files`,
        and for MatConvNet, see `matlab_files`.

    Raises:
        UserError: if the file is missing, truncated, of another format, or would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}: name a checkpoint with --input")
    try:
        return _read(path)
    except Exception as error:  # every reader raises errors of its own for a truncated or damaged file
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path} cannot be read ({reason}): get it again; formats: torch's .pth, .safetensors, Keras' .h5, "
            ".weights.h5 and .keras, ONNX, and MatConvNet's .mat"
        ) from error


def _read(path: Path) -> dict[str, np.ndarray]:
    with open(path, "rb") as file:
        begin = file.read(16)
    if begin.startswith(matlab_files.MAGIC):
        return matlab_files.read(path)
    if begin.startswith(HDF5_MAGIC):
        return keras_files.read_hdf5(path)
    if begin.startswith(ZIP_MAGIC):
        with zipfile.ZipFile(path) as archive:
            is_keras = "model.weights.h5" in archive.namelist()
        return keras_files.read_zip(path) if is_keras else torch_files.read_zip(path)
    if begin.startswith(PICKLE_MAGIC):
        return torch_files.read_legacy(path)
    if len(begin) == 16 and begin[8:9] == b"{":  # an 8-byte length, then JSON
        return safetensors.numpy.load_file(path)
    return _read_onnx(path)


def _read_onnx(path: Path) -> dict[str, np.ndarray]:
    import onnx  # here, because the import takes half a second and only AlexNet needs it

    # Arrays in other files are not loaded: a model may name any path.
    graph = onnx.load(path, load_external_data=False).graph
    if not graph.node:
        raise ValueError("it is none of the known formats")
    tensors = {a.name: a for a in graph.initializer}
    for node in graph.node:  # some exporters keep weights in nodes
        value = [a.t for a in node.attribute if a.name == "value" and a.HasField("t")]
        if node.op_type == "Constant" and value and value[0].data_type in ONNX_FLOATS:
            tensors[node.output[0]] = value[0]
        elif node.op_type == "Identity" and node.input[0] in tensors:
            tensors[node.output[0]] = tensors.pop(node.input[0])
    if any(a.data_location == onnx.TensorProto.EXTERNAL for a in tensors.values()):
        raise ValueError("its arrays lie in another file: save it as one")
    return {name: onnx.numpy_helper.to_array(a) for name, a in tensors.items()}
