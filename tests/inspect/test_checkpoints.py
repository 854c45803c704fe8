import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from lesion.errors import UserError
from lesion.inspect import measure, opening, page, show
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
    made = resume.Keeper(folder, 2)
    for number in (2, 10):
        tree = {"state": {"params": {"backbone": PARAMS}}, "logit": np.ones(number, np.float32)}
        made.save(number, tree, {"place": {"epoch": number}, "run": {"fold": 1, "config": {"seed": 3}}})
    made.close()
    return folder, ["logit", *(f"state/params/backbone/{name}" for name in NAMES)]


def manager(folder):
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), PARAMS)
    with ocp.CheckpointManager(folder) as made:
        made.save(7, args=ocp.args.StandardSave({"opt": (optax.TraceState(half), ()), "step": 5, "none": None}))
        made.wait_until_finished()
    return folder, [*(f"opt/0/trace/{name}" for name in NAMES), "step"]


def bare(folder):
    with ocp.PyTreeCheckpointer(use_ocdbt=False) as made:
        made.save(folder, {"layers": [PARAMS["conv"], PARAMS["block_10"]], "word": "x"})
    return folder, ["layers/0/bias", "layers/0/kernel", "layers/1/scale", "word"]


@pytest.mark.parametrize("make", [weights, keeper, manager, bare])
def test_every_form_is_opened_by_its_metadata_and_read_in_groups(make, tmp_path, monkeypatch, capsys):
    folder, names = make(tmp_path / "it")
    opened = opening.open_checkpoint(folder)
    assert list(opened.leaves) == names
    whole, calls = dict(opening.read(opened, names)), []
    restore = opening._restore
    monkeypatch.setattr(opening, "_restore", lambda *args: calls.append(args[2]) or restore(*args))
    monkeypatch.setattr(opening, "GROUP_BYTES", 24)
    for name, array in opening.read(opened, names[:2]):
        np.testing.assert_array_equal(array.astype(np.float32), whole[name].astype(np.float32))
        leaf = opened.leaves[name]
        assert array.shape == leaf.shape and array.dtype == jnp.dtype(leaf.dtype) and leaf.num_bytes == array.nbytes
    assert all(len(places) <= 2 for places in calls)  # no more than was asked for
    kernel = next(name for name in names if name.endswith("kernel"))
    assert show.first_kernel(opened) == kernel
    np.testing.assert_array_equal(np.asarray(whole[kernel], np.float32), PARAMS["conv"]["kernel"])
    show.tell(opened, None)
    told = capsys.readouterr().out
    assert all(name in told for name in names)
    assert ("2 NOT FINITE" in told) == (make is not bare)


def test_where_it_came_from_and_the_newest_of_several(tmp_path):
    folder, _ = keeper(tmp_path / "run" / "checkpoints" / "fold_1_training")
    opened = opening.open_checkpoint(folder)
    assert opened.path.name == "10" and opened.config == {"seed": 3}
    assert {"  place.epoch = 10", "  seed = 3"} <= set(show.origin(opened))
    for path, message in [
        (tmp_path / "no", "there is no"),
        (tmp_path / "run", "several checkpoints: name one of them"),
        (folder / "10" / "record", "no Orbax checkpoint"),
    ]:
        with pytest.raises(UserError, match=message):
            opening.open_checkpoint(path)
    (folder / "10" / "tree" / "_METADATA").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        opening.open_checkpoint(folder)


# Orbax leaves open what it began where reading fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_is_lost_hides_nothing_else(tmp_path, capsys):
    folder, names = bare(tmp_path / "it")
    (folder / "layers.0.kernel" / "0.0.0.0").write_bytes(b"broken")
    opened = opening.open_checkpoint(folder)
    found = dict(opening.read(opened, names))
    assert found["layers/0/kernel"] is None
    np.testing.assert_array_equal(found["layers/1/scale"], PARAMS["block_10"]["scale"])
    show.tell(opened, folder)
    assert "CANNOT BE READ: 1 of 3 arrays, the first layers/0/kernel" in capsys.readouterr().out


def test_differences_are_told_leaf_by_leaf_whatever_wraps_them(tmp_path, capsys):
    here, _ = keeper(tmp_path / "keeper")
    moved = jax.tree.map(np.copy, PARAMS)
    moved["conv"]["kernel"] *= 2
    moved["block_10"]["scale"] = np.ones(4, np.float32)
    checkpoint.save_variables(tmp_path / "weights", {"params": moved | {"fc": {"bias": np.ones(1, np.float32)}}}, {})
    show.tell(opening.open_checkpoint(here), tmp_path / "weights")
    told = capsys.readouterr().out.partition("difference from")[2]
    rows = {line.split()[0].rpartition("backbone/")[2]: line.split()[1:3] for line in told.splitlines()[2:6]}
    assert rows["conv/kernel"] == ["50.000%", "53"] and rows["conv/bias"] == ["same", "0"]
    assert rows["block_10/scale"] == ["SHAPES", "3"] and rows["block_9/scale"] == ["nan%", "nan"]
    assert "1 leaves only here, 1 only there" in told and "moved most: state/params/backbone/conv/kernel" in told


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.int32, np.bool_])
def test_measures_are_numpys_and_do_not_depend_on_chunks(dtype, rng, monkeypatch):
    array = (rng.normal(size=(7, 9)) * 4 + 100).astype(dtype)
    wide = array.astype(np.float64)
    monkeypatch.setattr(measure, "CHUNK", 10)
    found = measure.measure(array)
    np.testing.assert_allclose(found, (wide.mean(), wide.std(), np.linalg.norm(wide), 0), rtol=1e-12)
    other = np.roll(array, 1)
    gap = np.abs(wide - other.astype(np.float64))
    wanted = np.linalg.norm(gap) / np.linalg.norm(wide), gap.max()
    np.testing.assert_allclose(measure.differ(array, other), wanted, rtol=1e-12)
    assert measure.differ(array, array) == (0, 0)


def test_filters_are_scaled_each_by_itself_and_the_page_needs_nothing_else(tmp_path):
    folder, _ = weights(tmp_path / "<w>")
    opened = opening.open_checkpoint(folder)
    kernel = np.zeros((3, 3, 3, 17), np.float32)
    kernel[0, 0, 0, :] = np.linspace(0.01, 3, 17)
    picture = page.filters(kernel)
    corners = picture[page.GAP :: picture.shape[0] // 2, page.GAP :: picture.shape[1] // page.A_ROW]
    np.testing.assert_array_equal(corners.reshape(-1, 3)[:17], np.tile([255, 128, 128], (17, 1)))
    np.testing.assert_array_equal(page.filters(kernel, blue_first=True), picture[..., ::-1])
    page.write(tmp_path / "page.html", opened, list(show.look(opened)))
    text = (tmp_path / "page.html").read_text()
    assert "data:image/png;base64," in text and "&lt;w&gt;" in text and "treescope" in text
    assert "<h1><w>" not in text and "http://" not in text and "https://" not in text


def test_converted_weights_are_not_of_the_run_whose_folder_they_lie_in(tmp_path):
    (tmp_path / "config.json").write_text('{"config": {"seed": 3}}')
    assert opening.open_checkpoint(weights(tmp_path / "fold_0")[0]).config == {"seed": 3}
    converted = tmp_path / "weights"
    checkpoint.save_variables(converted, {"params": PARAMS}, {"model": "tiny", "source": "lite"})
    assert opening.open_checkpoint(converted).config == {}
