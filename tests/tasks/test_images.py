from __future__ import annotations

import pytest
import torch

from petra_optuna.tasks.images import positions_in_class, random_flip, random_shift


def test_positions_count_each_class_on_its_own() -> None:
    assert positions_in_class(torch.tensor([2, 0, 2, 2, 0, 1])).tolist() == [0, 0, 1, 2, 1, 0]


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_each_shift_is_a_crop_of_the_padded_image_and_all_of_them_occur(mode: str) -> None:
    image = torch.arange(1.0, 26.0).view(1, 1, 5, 5)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode=mode)
    crops = [padded[0, :, dy : dy + 5, dx : dx + 5] for dy in range(3) for dx in range(3)]
    shifted = random_shift(image.repeat(200, 1, 1, 1), 1, mode, torch.Generator().manual_seed(0))
    matches = [[torch.equal(one, crop) for crop in crops].index(True) for one in shifted]
    assert set(matches) == set(range(9))


def test_flips_mirror_about_half_of_the_images() -> None:
    images = torch.randn(400, 1, 2, 3)
    flipped = random_flip(images, torch.Generator().manual_seed(0))
    changed = torch.tensor([torch.equal(new, old.flip(2)) for new, old in zip(flipped, images, strict=True)])
    assert torch.equal(flipped[~changed], images[~changed])
    assert 150 < int(changed.sum()) < 250
