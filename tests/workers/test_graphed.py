"""A step as a CUDA graph: only on a GPU."""

from __future__ import annotations

import pytest
import torch

from tests.support.made import changed, image_config, image_job
from workers.contract import Verdict
from workers.tasks.images.config import Recipe
from workers.tasks.images.train import Ended, _Child, train  # captured steps need a GPU

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")

JOB = image_job(0, "x * sigmoid(beta * x)", limit_train=640, recipe=Recipe(epochs=3, precision="float32"))


def test_a_captured_step_learns_what_an_eager_one_does() -> None:
    from workers.tasks.images.data import load

    cuda = torch.device("cuda")
    data = load(image_config(JOB).dataset, 0, cuda, "", image_config(JOB).limit_train)
    graphed, eager = _Child(JOB, data, cuda), _Child(JOB, data, cuda)
    eager.step = eager._step
    for one, other in zip(graphed.epochs(0, lambda: None), eager.epochs(0, lambda: None), strict=True):
        assert one.metrics["train_loss"] == pytest.approx(other.metrics["train_loss"], rel=1e-3)
        assert one.metrics["val_acc"] == pytest.approx(other.metrics["val_acc"], abs=0.02)


def test_a_loss_that_is_not_finite_ends_the_training_within_50_steps() -> None:
    from workers.tasks.images.data import load

    cuda = torch.device("cuda")
    child = _Child(JOB, load(image_config(JOB).dataset, 0, cuda, "", image_config(JOB).limit_train), cuda)
    child.recipe = changed(image_config(JOB).recipe, batch_size=4)  # 128 steps
    losses = [torch.tensor(1.0, device=cuda)] * 30 + [torch.tensor(float("nan"), device=cuda)] * 98
    left = iter(losses)
    child.step = lambda images, labels: next(left)
    child.rates = [0.1] * 128
    with pytest.raises(Ended, match="epoch 1, step 31"):
        child._train_epoch(1, 128, lambda: None)
    assert len(list(left)) >= 128 - 30 - 50


def test_the_host_does_not_wait_within_an_epoch() -> None:
    from workers.tasks.images.data import load

    cuda = torch.device("cuda")
    child = _Child(JOB, load(image_config(JOB).dataset, 0, cuda, "", image_config(JOB).limit_train), cuda)
    child._train_epoch(1, 10, lambda: None)  # the capture waits
    modes = []

    def looked() -> None:
        modes.append(torch.cuda.get_sync_debug_mode())
        torch.cuda.set_sync_debug_mode("error" if len(modes) < 10 else "default")

    child._train_epoch(2, 10, looked)
    assert len(modes) == 10


def test_training_on_a_gpu() -> None:
    outcome = train(JOB)
    assert outcome.verdict is Verdict.COMPLETE
    assert outcome.curve[-1].metrics["train_loss"] < outcome.curve[0].metrics["train_loss"]
