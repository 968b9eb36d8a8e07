from __future__ import annotations

import torch

from petra_optuna.tasks.arrays import SampleArray


def test_single_images_and_batches_agree() -> None:
    images = torch.randint(0, 256, (6, 3, 4, 4), dtype=torch.uint8)
    array = SampleArray(images, torch.arange(6), 255.0)
    batch, targets = array.__getitems__([4, 1])
    for row, index in enumerate((4, 1)):
        image, target = array[index]
        assert torch.equal(batch[row], image)
        assert targets[row] == target == index
    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch * 255, images[[4, 1]].float())
