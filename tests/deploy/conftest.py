"""Networks that lowering must cope with, each with an example batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from petra_optuna.models import ResidualNet


class PreActivation(nn.Module):
    """Batch norm before each convolution: after an addition it has nothing to fold into."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.bn1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.bn2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.bn3, self.head = nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        inner = self.conv1(torch.relu(self.bn1(x)))
        x = x + self.conv2(torch.relu(self.bn2(inner)))
        return self.head(torch.relu(self.bn3(x)).mean((2, 3)))


class TwoInputs(nn.Module):
    """Positional or keyword, one of them of integers."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix = nn.Embedding(10, 6), nn.Linear(8, 3)

    def forward(self, amounts, codes):
        return self.mix(torch.cat([self.embed(codes).mean(1), amounts], dim=1))


def network(name):
    networks = {
        "residual": lambda: ResidualNet(1, 4, widths=(8, 16), blocks=1),
        "pre_activation": PreActivation,
        "mlp": lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(64, 48, bias=False), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 4)
        ),
        "low_rank": lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False),
            nn.Conv2d(4, 16, 1),
            nn.BatchNorm2d(16),
            nn.ReLU6(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(144, 4),
        ),
    }
    torch.manual_seed(0)
    model = networks[name]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return model.eval()


NETWORKS = ("residual", "pre_activation", "mlp", "low_rank")


@pytest.fixture(params=NETWORKS)
def model(request):
    return network(request.param)


@pytest.fixture(scope="session")
def images():
    return (torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)),)


@pytest.fixture
def residual():
    return network("residual")


@pytest.fixture
def two_inputs():
    torch.manual_seed(0)
    return TwoInputs().eval()


@pytest.fixture(scope="module", autouse=True)
def exported_once():
    """Every test of exports exports itself."""
