import jax
import pytest

from lesion.errors import UserError
from lesion.train import devices


def slurm(tasks, nodes, visible=None, on_node=None):
    named = {"SLURM_STEP_NUM_TASKS": tasks, "SLURM_STEP_NUM_NODES": nodes, "SLURM_GPUS_ON_NODE": on_node}
    return {k: str(v) for k, v in (named | {"CUDA_VISIBLE_DEVICES": visible}).items() if v is not None}


CASES = {
    "one task a node": (slurm(2, 2, "0,1,2,3", 4), True),
    "one task a GPU, all seen by each": (slurm(8, 2, "0,1,2,3", 4), False),
    "one task a GPU, bound to it": (slurm(8, 2, "0", 4), True),
    "no GPU": (slurm(4, 2), False),
}


@pytest.mark.parametrize(("environ", "want"), CASES.values(), ids=CASES)
def test_a_slurm_task_takes_the_gpus_that_are_its_own(environ, want):
    assert devices.owns_visible_gpus(environ) is want


def test_half_an_address_is_refused_and_a_batch_script_is_one_process(monkeypatch):
    with pytest.raises(UserError, match="belong together"):
        devices.connect("host:1", 2, None)
    monkeypatch.setenv("SLURM_NTASKS", "8")  # as sbatch leaves it
    devices.connect(None, None, None)
    assert jax.process_count() == 1
