import collections
import os
import shutil
import subprocess
import sys
from pathlib import Path

import filelock
import hypothesis
import pytest

# Before JAX is imported: dtype promotion is an error everywhere in the tests.
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

SEED = 20201122
hypothesis.settings.register_profile("untimed", deadline=None)  # speed is no test's matter
hypothesis.settings.load_profile("untimed")
# Tiny networks, compiled for every test anew: without optimizations and with XLA's older, simpler code generator that
# takes a third of the time, and kept in a folder for all processes of a run, here and in those that these tests start.
# Backbones, weights and everything of full size are compiled as users do.
COMPILED_FAST = {"active", "benchmarks", "inference", "runs", "train", "transfer"}
SIMPLE = {"xla_cpu_use_fusion_emitters": False}


def pytest_addoption(parser):
    parser.addoption("--as_users_compile", action="store_true", help="Compile tiny networks as users' are.")


def pytest_collection_modifyitems(items):
    """Files with most slow tests go first: each runs in one process, and the last should be a short one."""
    slow = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder that all processes of a run see."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def phantom_dicom(shared):
    """The tiny cohort as launch.make_phantom writes it, made once for all processes of a run; not to be changed."""
    with filelock.FileLock(shared / "phantom.lock"):  # what is there is whole, and made again at once
        command = [sys.executable, "-m", "launch.make_phantom", "--preset=tiny", f"--output={shared}/phantom"]
        subprocess.run(command, check=True)
    return shared / "phantom"


@pytest.fixture
def tree(tmp_path):
    from dicom_trees import make_tree

    return make_tree(tmp_path / "dicom")


@pytest.fixture
def flair_tree(tmp_path):
    """Where one sequence shows what is to be shown."""
    from dicom_trees import make_tree

    return make_tree(tmp_path / "dicom", kinds=("flair",))


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window."""
    from selenium import webdriver

    chromium, driver_path = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not (chromium and driver_path):
        pytest.skip("no chromium and chromedriver: apt install chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1366,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(driver_path))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def pydicom_files():
    import pydicom

    return Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture
def rng():
    import numpy as np

    return np.random.default_rng(SEED)


@pytest.fixture(autouse=True, scope="module")
def _own_weights():
    """Networks of one name differ between test files: their weights are not to be those of another file's."""
    yield
    if "lesion.transfer.loading" in sys.modules:
        sys.modules["lesion.transfer.loading"]._weights.cache_clear()


@pytest.fixture(autouse=True, scope="module")
def _compiled_fast(request, shared):
    if request.path.parent.name not in COMPILED_FAST or request.config.getoption("as_users_compile"):
        yield
        return
    import jax
    from jax._src import compiler  # there is no public way to set an option of XLA for a while
    from jax.experimental.compilation_cache import compilation_cache

    def simply(*args, env_options_overrides, **kwargs):
        return options(*args, env_options_overrides=SIMPLE | env_options_overrides, **kwargs)

    options = compiler.get_compile_options
    fast = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(shared / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.1,  # with less, writing takes as long as compiling
    }
    jax.block_until_ready(jax.numpy.ones(1) + 1)  # XLA reads its flags once: those below are for other processes
    with pytest.MonkeyPatch.context() as patch:
        for name, value in fast.items():
            patch.setenv(name.upper(), str(value))
            jax.config.update(name, value)
        patch.setenv("XLA_FLAGS", " ".join(f"--{name}={str(value).lower()}" for name, value in SIMPLE.items()))
        patch.setattr(compiler, "get_compile_options", simply)
        yield
        jax.config.update("jax_disable_most_optimizations", False)
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()
