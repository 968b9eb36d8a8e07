"""Equal keys mean equal graphs; what cannot be told from the model has no key."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, weight_norm

from petra_optuna.deploy.graph_key import graph_key
from petra_optuna.nn.low_rank import FactoredRecurrent

EXAMPLE = (torch.zeros(4, 6),)


class Net(nn.Module):
    """Attributes of the kinds that models have."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.register_buffer("mean", torch.zeros(6))
        self.scale, self.names, self.activation = 2.0, ["a", "b"], functional.relu

    def forward(self, x):
        return self.second(self.activation(self.first(x - self.mean))) * self.scale


def test_the_values_of_parameters_and_buffers_are_not_in_the_key():
    model, other = Net(), Net()
    torch.nn.init.ones_(other.mean)
    assert graph_key(model, EXAMPLE) is not None
    assert graph_key(model, EXAMPLE) == graph_key(other, EXAMPLE) == graph_key(copy.deepcopy(other), EXAMPLE)


def _tie(net):
    net.second.weight = net.first.weight


def _other_forward(net):
    net.__class__ = type("Other", (Net,), {"forward": lambda self, x: self.first(x)})


CHANGES = {
    "number": lambda net: setattr(net, "scale", 3.0),
    "type of a number": lambda net: setattr(net, "scale", 2),
    "list": lambda net: net.names.append("c"),
    "function": lambda net: setattr(net, "activation", torch.tanh),
    "wider layer": lambda net: setattr(net, "second", nn.Linear(6, 7)),
    "other layer": lambda net: setattr(net, "second", nn.Identity()),
    "no bias": lambda net: setattr(net, "second", nn.Linear(6, 6, bias=False)),
    "tied weights": _tie,
    "shared layer": lambda net: setattr(net, "second", net.first),
    "type of a buffer": lambda net: setattr(net, "mean", net.mean.double()),
    "layout of a weight": lambda net: setattr(
        net.first, "weight", nn.Parameter(net.first.weight.detach().t().contiguous().t())
    ),
    "frozen weight": lambda net: net.first.weight.requires_grad_(False),
    "training": lambda net: net.eval(),
    "forward": _other_forward,
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_can_change_the_graph_changes_the_key(change):
    model = Net()
    before = graph_key(model, EXAMPLE)
    CHANGES[change](model)
    after = graph_key(model, EXAMPLE)
    assert after is not None
    assert after != before


def test_the_example_and_the_switches_of_pytorch_are_in_the_key():
    model = Net()
    keys = [graph_key(model, EXAMPLE), graph_key(model, (torch.zeros(4, 6).double(),))]
    keys += [graph_key(model, (torch.zeros(5, 6),)), graph_key(model, {"x": EXAMPLE[0]})]
    with torch.no_grad():
        keys.append(graph_key(model, EXAMPLE))
    assert len(set(keys)) == len(keys)


UNKNOWN = {
    "a tensor of its own": lambda net: setattr(net, "own", torch.zeros(2)),
    "a forward hook": lambda net: net.first.register_forward_hook(lambda module, args, output: output),
    "a hook before the call": lambda net: weight_norm(net.first),
    "a closure": lambda net: setattr(net, "activation", lambda x: x * net.scale),
    "a bound method": lambda net: setattr(net, "activation", net.first.forward),
    "another object": lambda net: setattr(net, "config", object()),
    "a module that is not its child": lambda net: setattr(net, "names", [nn.Linear(2, 2)]),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("change", UNKNOWN)
def test_a_model_whose_graph_may_depend_on_more_has_no_key(change):
    model = Net()
    UNKNOWN[change](model)
    assert graph_key(model, EXAMPLE) is None


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.GRU(6, 4),
        lambda: FactoredRecurrent("lstm", 6, 8, ranks={"weight_ih_l0": 2}),
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), 2),
        lambda: parametrizations.weight_norm(nn.Linear(6, 6)),
    ],
    ids=["gru", "factored lstm", "transformer", "parametrised"],
)
def test_layers_that_hold_their_weights_twice_have_a_key(build):
    model = build()
    key = graph_key(model, EXAMPLE)
    assert key is not None
    assert key == graph_key(copy.deepcopy(model), EXAMPLE)
