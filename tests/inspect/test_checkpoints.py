"""Checkpoints of every format opened, read, described and compared."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from lesion.errors import UserError
from lesion.inspect import page, reader, text
from lesion.runs import checkpoint, resume

PARAMS = {
    "conv": {"kernel": np.arange(54, dtype=np.float32).reshape(3, 3, 3, 2), "bias": np.zeros(2, np.float32)},
    "block_10": {"scale": np.ones(3, np.float32)},
    "block_9": {"scale": np.array([1, np.nan, np.inf], np.float32)},
}
NAMES = ["block_9/scale", "block_10/scale", "conv/bias", "conv/kernel"]  # 9 before 10


def weights(folder):
    checkpoint.save_variables(folder, {"params": PARAMS}, {"model": "tiny", "preprocessing": "bvlc"})
    return folder, [f"params/{name}" for name in NAMES]


def keeper(folder):
    writer = resume.Checkpointer(folder, 2)
    for number in (2, 10):
        tree = {"state": {"params": {"backbone": PARAMS}}, "logit": np.ones(number, np.float32)}
        writer.save(number, tree, {"progress": {"epoch": number}, "run": {"fold": 1, "config": {"seed": 3}}})
    writer.close()
    return folder, ["logit", *(f"state/params/backbone/{name}" for name in NAMES)]


def manager(folder):
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), PARAMS)
    with ocp.CheckpointManager(folder) as writer:
        writer.save(7, args=ocp.args.StandardSave({"opt": (optax.TraceState(half), ()), "step": 5, "none": None}))
        writer.wait_until_finished()
    return folder, [*(f"opt/0/trace/{name}" for name in NAMES), "step"]


def bare(folder):
    with ocp.PyTreeCheckpointer(use_ocdbt=False) as writer:
        writer.save(folder, {"layers": [PARAMS["conv"], PARAMS["block_10"]], "word": "x"})
    return folder, ["layers/0/bias", "layers/0/kernel", "layers/1/scale", "word"]


@pytest.mark.parametrize("make", [weights, keeper, manager, bare])
def test_every_format_is_opened_by_its_metadata_and_read_in_groups(make, tmp_path, monkeypatch, capsys):
    folder, names = make(tmp_path / "checkpoint")
    opened = reader.open_checkpoint(folder)
    assert list(opened.leaves) == names
    whole, calls = dict(reader.read_arrays(opened, names)), []
    restore = reader._restore
    monkeypatch.setattr(reader, "_restore", lambda *args: calls.append(args[2]) or restore(*args))
    monkeypatch.setattr(reader, "GROUP_BYTES", 24)
    for name, array in reader.read_arrays(opened, names[:2]):
        np.testing.assert_array_equal(array.astype(np.float32), whole[name].astype(np.float32))
        leaf = opened.leaves[name]
        assert array.shape == leaf.shape and array.dtype == jnp.dtype(leaf.dtype) and leaf.num_bytes == array.nbytes
    assert all(len(positions) <= 2 for positions in calls)  # no more than wanted
    kernel = next(name for name in names if name.endswith("kernel"))
    assert text.first_kernel(opened) == kernel
    np.testing.assert_array_equal(np.asarray(whole[kernel], np.float32), PARAMS["conv"]["kernel"])
    text.print_checkpoint(opened, None)
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
    assert ("2 NOT FINITE" in printed) == (make is not bare)


def test_origin_and_the_newest_of_several(tmp_path):
    folder, _ = keeper(tmp_path / "run" / "checkpoints" / "fold_1_training")
    opened = reader.open_checkpoint(folder)
    assert opened.path.name == "10" and opened.config == {"seed": 3}
    assert {"  progress.epoch = 10", "  seed = 3"} <= set(text.origin_lines(opened))
    for path, message in [
        (tmp_path / "no", "there is no"),
        (tmp_path / "run", "several checkpoints: name one of them"),
        (folder / "10" / "record", "no Orbax checkpoint"),
    ]:
        with pytest.raises(UserError, match=message):
            reader.open_checkpoint(path)
    (folder / "10" / "tree" / "_METADATA").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        reader.open_checkpoint(folder)


# Orbax leaves open what it began where reading fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_lost_array_hides_no_other(tmp_path, capsys):
    folder, names = bare(tmp_path / "checkpoint")
    (folder / "layers.0.kernel" / "0.0.0.0").write_bytes(b"broken")
    opened = reader.open_checkpoint(folder)
    found = dict(reader.read_arrays(opened, names))
    assert found["layers/0/kernel"] is None
    np.testing.assert_array_equal(found["layers/1/scale"], PARAMS["block_10"]["scale"])
    text.print_checkpoint(opened, folder)
    assert "CANNOT BE READ: 1 of 3 arrays, the first layers/0/kernel" in capsys.readouterr().out


def test_differences_leaf_by_leaf_whatever_wraps_them(tmp_path, capsys):
    here, _ = keeper(tmp_path / "keeper")
    moved = jax.tree.map(np.copy, PARAMS)
    moved["conv"]["kernel"] *= 2
    moved["block_10"]["scale"] = np.ones(4, np.float32)
    checkpoint.save_variables(tmp_path / "weights", {"params": moved | {"fc": {"bias": np.ones(1, np.float32)}}}, {})
    text.print_checkpoint(reader.open_checkpoint(here), tmp_path / "weights")
    printed = capsys.readouterr().out.partition("difference from")[2]
    rows = {line.split()[0].rpartition("backbone/")[2]: line.split()[1:3] for line in printed.splitlines()[2:6]}
    assert rows["conv/kernel"] == ["50.000%", "53"] and rows["conv/bias"] == ["same", "0"]
    assert rows["block_10/scale"] == ["SHAPES", "3"] and rows["block_9/scale"] == ["nan%", "nan"]
    assert "1 leaves only here, 1 only there" in printed and "moved most: state/params/backbone/conv/kernel" in printed


def test_filters_are_scaled_one_by_one_and_the_page_needs_no_other_file(tmp_path):
    folder, _ = weights(tmp_path / "<w>")
    opened = reader.open_checkpoint(folder)
    kernel = np.zeros((3, 3, 3, 17), np.float32)
    kernel[0, 0, 0, :] = np.linspace(0.01, 3, 17)
    grid = page.filter_grid(kernel)
    corners = grid[page.GAP :: grid.shape[0] // 2, page.GAP :: grid.shape[1] // page.COLUMNS]
    np.testing.assert_array_equal(corners.reshape(-1, 3)[:17], np.tile([255, 128, 128], (17, 1)))
    np.testing.assert_array_equal(page.filter_grid(kernel, blue_first=True), grid[..., ::-1])
    page.write(tmp_path / "page.html", opened, list(text.summarize(opened)))
    source = (tmp_path / "page.html").read_text()
    assert "data:image/png;base64," in source and "&lt;w&gt;" in source and "treescope" in source
    assert "<h1><w>" not in source and "http://" not in source and "https://" not in source


def test_converted_weights_belong_to_no_run_whose_folder_they_lie_in(tmp_path):
    (tmp_path / "config.json").write_text('{"config": {"seed": 3}}')
    assert reader.open_checkpoint(weights(tmp_path / "fold_0")[0]).config == {"seed": 3}
    converted = tmp_path / "weights"
    checkpoint.save_variables(converted, {"params": PARAMS}, {"model": "tiny", "source": "lite"})
    assert reader.open_checkpoint(converted).config == {}
