"""Branches on a grid by prefix: there and back, whatever order they come in."""

import itertools

import pytest
import torch

from alignlab.engine.sampling.shared import BranchIndex


@pytest.mark.parametrize("prefixes", [(0, 1), (1, 0), (1, 0, 2), (2, 0, 1), (0, 0, 1, 1), (1, 1, 0, 0), (0, 2, 2)])
def test_every_branch_stands_in_its_prefix_row_and_comes_back(prefixes):
    prefix_L = torch.tensor(prefixes)
    zeros_L = torch.zeros_like(prefix_L)
    index = BranchIndex(prefixes=max(prefixes) + 1, prefix_L=prefix_L, depth_L=zeros_L, steps_L=zeros_L, longest=4)
    own_L = 10 + torch.arange(len(prefixes))
    grid_BN = index.to_grid(own_L)
    assert index.to_branches(grid_BN).tolist() == own_L.tolist()
    for branch, prefix in enumerate(prefixes):
        assert 10 + branch in grid_BN[prefix].tolist()


def test_all_orders_of_four():
    for order in itertools.permutations(range(4)):
        prefix_L, zeros_L = torch.tensor(order), torch.zeros(4, dtype=torch.long)
        index = BranchIndex(prefixes=4, prefix_L=prefix_L, depth_L=zeros_L, steps_L=zeros_L, longest=4)
        grid_BN = index.to_grid(torch.arange(4))
        assert [grid_BN[prefix, 0].item() for prefix in order] == [0, 1, 2, 3]
