import pytest

from lesion.experiments import executors

SBATCH = {
    "a comma in a value": (["mail-type=END,FAIL"], {"mail-type": "END,FAIL"}),
    "several options": (
        ["account=a,mail-type=END,FAIL,constraint=a100"],
        {"account": "a", "mail-type": "END,FAIL", "constraint": "a100"},
    ),
    "variables": (["export=ALL,HOME=/x", "gres=gpu:1"], {"export": "ALL,HOME=/x", "gres": "gpu:1"}),
    "no value": (["exclusive", "account="], {"exclusive": True, "account": ""}),
    "none": ([], {}),
}


@pytest.mark.parametrize(("given", "options"), SBATCH.values(), ids=SBATCH)
def test_options_of_sbatch_keep_their_commas(given, options):
    assert executors.sbatch_options(given) == options
