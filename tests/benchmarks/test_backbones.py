import pytest
from flax import linen as nn

from lesion.benchmarks import backbones

# Multiply-adds of a picture in units of 10⁹ as torchvision's model pages give them.
GIGA_MULTIPLY_ADDS = {
    ("resnet50", 224): 4.09,
    ("alexnet_torchvision", 224): 0.71,
    ("inception_v3", 299): 5.71,
}


@pytest.mark.slow
@pytest.mark.parametrize(("case", "wanted"), GIGA_MULTIPLY_ADDS.items(), ids=str)
def test_operations_are_the_published_ones(case, wanted):
    assert backbones.flops(*case) / 2e9 == pytest.approx(wanted, abs=0.006)


class Small(nn.Module):
    impl: str = "auto"

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(not train)(nn.Conv(4, (3, 3))(x))
        return nn.Dense(1000)(x.mean((1, 2)))


@pytest.mark.slow
def test_every_contender_has_its_turn_and_its_row(monkeypatch):
    monkeypatch.setattr(backbones, "PRODUCT_SIZE", 64)
    monkeypatch.setattr(backbones.models, "get_model", lambda name, **options: Small(**options))
    results = backbones.run(["small"], 8, 2, 1)
    ours = results["small"]["lesion"]
    assert all(r.images_per_s > 0 and r.share > 0 for r in ours.values())
    results["small"]["torch"] = {task: backbones.Result(r.images_per_s / 2, 0.0) for task, r in ours.items()}
    rows = backbones.table(results)
    assert rows[0][-1] == "x torch"
    assert [row[1] for row in rows[1:]] == ["inference", "training"]
    assert {row[-1] for row in rows[1:]} == {"2.00"}
