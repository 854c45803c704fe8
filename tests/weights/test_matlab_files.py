import numpy as np
import pytest
import scipy.io

from lesion import models, trees, weights
from lesion.errors import UserError
from lesion.models.preprocessing import MEAN_RGB
from lesion.weights import pretrained, public_files

KERNELS = {  # CNN-F with a hundredth of its channels: H, W, I, O
    "conv1": (11, 11, 3, 4),
    "conv2": (5, 5, 4, 6),
    "conv3": (3, 3, 6, 5),
    "conv4": (3, 3, 5, 5),
    "conv5": (3, 3, 5, 5),
    "fc6": (6, 6, 5, 7),
    "fc7": (1, 1, 7, 8),
    "fc8": (1, 1, 8, 9),
}


@pytest.fixture
def arrays(rng):
    return {n: (rng.normal(size=s).astype("f4"), rng.normal(size=(1, s[3])).astype("f4")) for n, s in KERNELS.items()}


def write(path, arrays, mean, *, old=False, mean_size=(224, 224)):
    """As MatConvNet saves a network; `old` as its first versions did."""
    layers = np.empty((1, 2 * len(arrays)), object)
    for i, (name, (filters, biases)) in enumerate(arrays.items()):
        cell = np.empty((1, 2), object)
        cell[0, :] = filters, biases
        leaves = {"filters": filters, "biases": biases} if old else {"weights": cell}
        layers[0, 2 * i] = {"type": "conv", "name": name, "pad": [0, 0, 0, 0], **leaves}
        layers[0, 2 * i + 1] = {"type": "relu", "name": name.replace("conv", "relu")}
    normalization = {"imageSize": [224, 224, 3]}
    if mean is not None:
        normalization["averageImage"] = np.broadcast_to(np.float32(mean), (*mean_size, 3)).copy()
    meta = {"normalization": normalization} if old else {"meta": {"normalization": normalization}}
    scipy.io.savemat(path, {"layers": layers, **meta})


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("mean_size", [(224, 224), (1, 1)])
def test_a_network_of_matconvnet_is_read_with_its_mean(old, mean_size, arrays, tmp_path):
    mean = np.array([120.0, 110.0, 100.0])
    write(tmp_path / "f.mat", arrays, mean, old=old, mean_size=mean_size)
    got = trees.flatten(weights.convert("cnn_f", "matconvnet", weights.read(tmp_path / "f.mat")))
    assert set(got) == set(trees.flatten(pretrained.shapes("cnn_f")))
    for name, (filters, biases) in arrays.items():
        flat = filters.reshape(-1, filters.shape[3]) if name.startswith("fc") else filters
        np.testing.assert_array_equal(got[f"params/{name}/kernel"], flat)
        if name != "conv1":
            np.testing.assert_array_equal(got[f"params/{name}/bias"], biases[0])
    window = np.random.default_rng(1).uniform(0, 255, (11, 11, 3))  # of an image, before its mean is subtracted
    kernel, bias = arrays["conv1"]
    theirs = np.einsum("hwi,hwio->o", window - mean, kernel) + bias[0]
    ours = np.einsum("hwi,hwio->o", window - np.array(MEAN_RGB), kernel) + got["params/conv1/bias"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-2)


def test_a_dense_layers_rows_are_in_the_order_of_our_flattened_map(arrays, tmp_path, rng):
    write(tmp_path / "f.mat", arrays, None)
    got = weights.convert("cnn_f", "matconvnet", weights.read(tmp_path / "f.mat"))["params"]["fc6"]["kernel"]
    cells = rng.normal(size=(6, 6, 5)).astype("f4")
    np.testing.assert_allclose(
        cells.reshape(-1) @ got, np.einsum("hwi,hwio->o", cells, arrays["fc6"][0]), rtol=1e-4, atol=1e-4
    )


def test_files_that_are_no_such_network_are_one_line(arrays, tmp_path):
    path = tmp_path / "f.mat"
    scipy.io.savemat(path, {"x": np.ones(3)})
    with pytest.raises(UserError, match=r"f\.mat cannot be read \(it holds no layers"):
        weights.read(path)
    write(path, arrays, None)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match=r"f\.mat cannot be read"):
        weights.read(path)
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(UserError, match=r"it is of MATLAB 7\.3"):
        weights.read(path)
    write(path, arrays, None)
    with pytest.raises(UserError, match="do not fit the model: params/conv1/bias is"):
        pretrained.convert_file("cnn_f", "matconvnet", str(path), str(tmp_path / "w"))
    assert not (tmp_path / "w").exists()


def test_its_file_is_not_fetched_and_its_weights_serve_both_rows(monkeypatch):
    assert public_files.find("cnn_f", "matconvnet") is None
    with pytest.raises(UserError, match="name one with --input"):
        pretrained.convert_file("cnn_f", "matconvnet", None, "nowhere")
    shapes = pretrained.shapes("cnn_f")
    monkeypatch.setattr(
        pretrained.checkpoint, "load_variables", lambda d: (shapes, {"model": "cnn_f", "pretrained": True})
    )
    for name in ("cnn_f", "cnn_f_svm"):
        assert pretrained.load(name, "w")[1]["pretrained"]
    assert models.get_spec("cnn_f_svm").weights_of == "cnn_f"
    with pytest.raises(UserError, match="holds weights of cnn_f, not of capsnet"):
        pretrained.load("capsnet", "w")
