"""The pretended GPU computes as a CPU does, and refuses what a GPU refuses."""

import copy

import numpy as np
import pytest
import torch
from pretend import CUDA, Pretended, pretended_gpu
from torch import nn

MIXED = "expected all tensors on one device, found cpu and cuda"


@pytest.fixture
def gpu():
    with pretended_gpu():
        yield


@pytest.fixture
def x(gpu):
    """Numbers on the CPU."""
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_it_says_that_it_is_there(x):
    y = x.to("cuda")
    assert y.is_cuda
    assert not y.is_cpu
    assert y.device == CUDA == torch.device("cuda", 0)
    assert y.cuda() is y.to("cuda") is y.to(CUDA) is y
    assert y.float().is_cuda
    assert x.cuda().is_cuda
    assert torch.cuda.is_available()
    torch.cuda.synchronize()
    assert torch.cuda.current_device() == 0
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        x.to("cuda:1")


def test_nothing_is_left_behind():
    before = torch.Generator, torch.cuda.is_available, torch.__future__.get_swap_module_params_on_conversion()
    with pretended_gpu():
        y = torch.ones(2, device="cuda")
        with pretended_gpu():
            assert (y + 1).is_cuda
        assert torch.zeros(2, device="cuda").is_cuda
    after = torch.Generator, torch.cuda.is_available, torch.__future__.get_swap_module_params_on_conversion()
    assert before == after
    assert torch.zeros(2).is_cpu
    assert (y + y).is_cuda  # what was made there goes on
    z = torch.ones(2, requires_grad=True)
    assert torch.autograd.grad(z.square().sum(), z)[0].tolist() == [2, 2]


@pytest.mark.parametrize("to", [lambda y: y.to("cpu"), lambda y: y.cpu(), lambda y: y.to(torch.device("cpu"))])
def test_there_and_back(x, to):
    back = to(x.to("cuda"))
    assert type(back) is torch.Tensor
    assert back.is_cpu
    assert torch.equal(back, x)
    back.zero_()
    assert x.any()


def test_only_the_cpu_gives_arrays(x):
    y = x.cuda()
    for ask in (y.numpy, lambda: np.asarray(y)):
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            ask()
    assert (y.cpu().numpy() == x.numpy()).all()
    assert y.tolist() == x.tolist()


FACTORIES = [
    lambda **d: torch.zeros(3, 2, **d),
    lambda **d: torch.ones((3, 2), **d),
    lambda **d: torch.full((3, 2), 2.0, **d),
    lambda **d: torch.arange(5, **d),
    lambda **d: torch.linspace(0, 1, 4, **d),
    lambda **d: torch.eye(3, **d),
    lambda **d: torch.tensor([[1.0, 2.0]], **d),
    lambda **d: torch.as_tensor([1, 2], **d),
    lambda **d: torch.zeros(2).new_ones(3, **d),
    lambda **d: torch.ones_like(torch.zeros(3), **d),
]


@pytest.mark.parametrize("make", FACTORIES)
@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda")])
def test_what_is_made_there(gpu, make, device):
    made = make(device=device)
    assert made.is_cuda
    assert torch.equal(made.cpu(), make())
    assert make().is_cpu


def test_what_is_made_from_one_that_is_there(x):
    y = x.cuda()
    for made in (torch.empty_like(y), y.new_zeros(3), y.new_tensor([1.0]), torch.zeros(2, device=y.device)):
        assert made.is_cuda
    assert torch.zeros_like(y, device="cpu").is_cpu


@pytest.mark.parametrize(
    "by", [lambda a: a @ a, lambda a: torch.einsum("ij,kj->ik", a, a), lambda a: (a * 2 - 1).exp()]
)
def test_it_computes_as_a_cpu_does(x, by):
    found = by(x.cuda())
    assert found.is_cuda
    assert torch.equal(found.cpu(), by(x))


def test_algebra(x):
    h = x @ x.T + torch.eye(4, dtype=x.dtype)
    y = h.cuda()
    root, info = torch.linalg.cholesky_ex(y)
    assert info.is_cuda
    assert torch.equal(root.cpu(), torch.linalg.cholesky_ex(h)[0])
    solved = torch.linalg.solve_triangular(root, x.cuda(), upper=False)
    assert (root @ solved - x.cuda()).abs().max() < 1e-12
    values, vectors = torch.linalg.eigh(y)
    assert torch.allclose((vectors * values) @ vectors.T, y)
    assert torch.allclose(torch.linalg.solve(y, x.cuda()).cpu(), torch.linalg.solve(h, x))
    assert torch.linalg.qr(y)[0].is_cuda
    assert torch.linalg.vector_norm(y, dim=-1).is_cuda


def test_joined_and_parted(x):
    y = x.cuda()
    assert torch.equal(torch.cat([y, y]).cpu(), torch.cat([x, x]))
    assert torch.stack([y, y], -1).shape == (4, 4, 2)
    assert all(part.is_cuda for part in [*y.split(2), *y.unbind(), *y.chunk(2, -1)])
    for join in (torch.cat, torch.stack):
        with pytest.raises(RuntimeError, match=MIXED):
            join([y, x])
    with pytest.raises(RuntimeError, match=MIXED):
        torch.stack([y[0, 0], x[0, 0]])


def test_where_and_numbers(x):
    y, one = x.cuda(), torch.tensor(1.0, dtype=x.dtype)
    assert torch.equal(torch.where(y > 0, one, y).cpu(), torch.where(x > 0, one, x))
    assert (y + one).is_cuda
    assert (one * y).is_cuda
    with pytest.raises(RuntimeError, match=MIXED):
        torch.where(y > 0, x, y)
    with pytest.raises(RuntimeError, match=MIXED):
        x + y[0, 0]  # a number of the GPU does not go with tensors of the CPU
    with pytest.raises(RuntimeError, match=MIXED):
        one += y[0, 0]


@pytest.mark.parametrize(
    "mix",
    [
        lambda x, y: x + y,
        lambda x, y: y @ x,
        lambda x, y: y.add_(x),
        lambda x, y: x.mul_(y),
        lambda x, y: torch.maximum(y, x),
        lambda x, y: y.gather(0, (x > 0).long()),
        lambda x, y: y.index_select(0, torch.tensor([0])),
        lambda x, y: x[torch.tensor([0, 1], device="cuda")],
        lambda x, y: x[y > 0],
        lambda x, y: y.masked_fill(x > 0, 0.0),
        lambda x, y: y.__setitem__(slice(None), torch.cat([x, y])),
        lambda x, y: y.__setitem__(torch.tensor([0, 1]), x[:2]),
        lambda x, y: torch.linalg.solve_triangular(y, x, upper=True),
        lambda x, y: torch.bucketize(x, y[0]),
        lambda x, y: torch.where(x > 0, y, y),
    ],
)
def test_two_devices_do_not_mix(x, mix):
    with pytest.raises(RuntimeError, match=MIXED):
        mix(x, x.cuda())


def test_copies_cross(x):
    y = torch.zeros_like(x, device="cuda")
    assert y.copy_(x) is y
    y[0] = torch.ones(4, dtype=x.dtype)  # a copy, of one device to the other
    assert torch.equal(y[1:].cpu(), x[1:])
    assert torch.equal(x.copy_(y), y.cpu())
    assert type(x) is torch.Tensor


def test_indices(x):
    y = x.cuda()
    rows, mask = torch.tensor([2, 0]), x > 0
    for index in (1, slice(1, 3), None, ..., (slice(None), 2), [0, 3], rows, mask, (rows, rows), (..., rows)):
        assert torch.equal(y[index].cpu(), x[index])
    assert torch.equal(y[rows.cuda()].cpu(), x[rows])
    assert torch.equal(y[mask.cuda()].cpu(), x[mask])
    y[mask] = 0.0
    y[rows] += 1
    y[0, rows.cuda()] = torch.tensor(3.0, dtype=x.dtype)
    x[mask] = 0.0
    x[rows] += 1
    x[0, rows] = 3.0
    assert torch.equal(y.cpu(), x)
    assert torch.equal((y > 0).nonzero().cpu(), (x > 0).nonzero())
    assert all(t.is_cuda for t in (y > 0).nonzero(as_tuple=True))


def test_numbers_are_read(x):
    y = x.cuda()
    assert y.sum().item() == x.sum().item()
    assert float(y[0, 0]) == float(x[0, 0])
    assert bool((y == y).all())
    assert int(y.argmax()) == int(x.argmax())
    assert len(y) == 4
    assert [row.is_cuda for row in y] == [True] * 4
    assert torch.allclose(y, y)
    assert "pretended" in repr(y)
    assert f"{y[0, 0].item():.3f}" == f"{x[0, 0].item():.3f}"


def test_views_share_memory(x):
    y = x.clone().cuda()
    view = y[1:3].T.reshape(4, 2)[..., None].squeeze(-1)
    for z, one in ((y, view), (x, x[1:3].T)):
        assert one.mul_(2) is one
        one[0, 0] = 7.0
        z.view(-1)[3] = 5.0
        z.diagonal().zero_()
    assert torch.equal(y.cpu(), x)
    z = y.unsqueeze_(0)
    assert z is y
    assert y.shape == (1, 4, 4)
    assert torch.equal(y.cpu()[0], x)


def test_out(x):
    y, out = x.cuda(), torch.empty_like(x, device="cuda")
    assert torch.matmul(y, y, out=out) is out
    assert torch.equal(out.cpu(), x @ x)
    with pytest.raises(RuntimeError, match=MIXED):
        torch.matmul(y, y, out=torch.empty_like(x))


def test_generators(gpu):
    made = torch.Generator("cuda").manual_seed(3)
    plain = torch.Generator().manual_seed(3)
    assert made.device.type == "cuda"
    assert plain.device.type == "cpu"
    assert isinstance(made, torch.Generator)
    assert isinstance(plain, torch.Generator)
    state = made.get_state()
    there = torch.randn(5, device="cuda", generator=made)
    assert there.is_cuda
    assert torch.equal(there.cpu(), torch.randn(5, generator=plain))
    again = torch.Generator(device=torch.device("cuda")).set_state(state)
    assert torch.equal(torch.randn(5, device="cuda", generator=again), there)
    for ask in (
        lambda: torch.randn(2, device="cuda", generator=plain),
        lambda: torch.rand(2, device="cuda", generator=plain),
        lambda: torch.randint(3, (2,), device="cuda", generator=plain),
        lambda: torch.empty(2, device="cuda").normal_(generator=plain),
        lambda: torch.multinomial(there.abs(), 2, generator=plain),
        lambda: torch.bernoulli(torch.sigmoid(there), generator=plain),
        lambda: torch.randperm(3, device="cuda", generator=plain),
    ):
        with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator but found 'cpu'"):
            ask()
    with pytest.raises(RuntimeError, match="Expected a 'cpu' device type for generator but found 'cuda'"):
        torch.randn(2, generator=made)
    assert torch.multinomial(there.abs(), 2, generator=made).is_cuda
    assert torch.randn(2, device="cuda").is_cuda
    torch.manual_seed(0)


def test_gradients(x):
    y = x.cuda().requires_grad_()
    (y.square().sum() / 2).backward()
    assert y.grad.is_cuda
    assert torch.equal(y.grad.cpu(), x)
    z = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad((z.cuda() ** 2).sum(), z)  # through the way there
    assert slope.is_cpu
    assert torch.equal(slope, 2 * x)
    made = torch.zeros(3, device="cuda", requires_grad=True)
    assert torch.autograd.grad(made.sin().sum(), made)[0].is_cuda
    (first,) = torch.autograd.grad((y**3).sum(), y, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), y)
    assert torch.allclose(second, 6 * y)


def test_modules(x):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 1)).double()
    net.register_buffer("offset", torch.ones(1, dtype=torch.float64))
    before, weight = net(x).detach(), net[0].weight
    assert net.to("cuda") is net
    assert net[0].weight is weight
    assert weight.is_cuda
    assert isinstance(weight, nn.Parameter)
    assert isinstance(weight, Pretended)
    assert net.offset.is_cuda
    with pytest.raises(RuntimeError, match=MIXED):
        net(x)
    assert torch.allclose(net(x.cuda()).cpu(), before)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    loss = net(x.cuda()).square().mean()
    loss.backward()
    assert nn.utils.clip_grad_norm_(net.parameters(), 1.0).is_cuda
    optimizer.step()
    assert net(x.cuda()).square().mean() < loss
    twin = copy.deepcopy(net)
    assert twin[0].weight.is_cuda
    assert torch.equal(twin(x.cuda()), net(x.cuda()))
    state = {name: value.cpu() for name, value in net.state_dict().items()}
    with torch.no_grad():
        weight.zero_()
    net.load_state_dict(state)
    assert net[0].weight.is_cuda
    assert torch.equal(twin(x.cuda()), net(x.cuda()))
    optimizer.zero_grad(set_to_none=True)
    del loss
    assert net.to("cpu")[0].weight.is_cpu
    assert torch.equal(net(x), twin(x.cuda()).cpu())


def test_attention(x):
    q = x.expand(2, 3, 4, 4)
    bias = torch.zeros(4, 4, dtype=x.dtype)
    there = nn.functional.scaled_dot_product_attention(q.cuda(), q.cuda(), q.cuda(), attn_mask=bias.cuda())
    assert torch.allclose(there.cpu(), nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=bias))
    with pytest.raises(RuntimeError, match=MIXED):
        nn.functional.scaled_dot_product_attention(q.cuda(), q.cuda(), q.cuda(), attn_mask=bias)


def test_functional_transforms(x):
    y = x.cuda()
    jacobian = torch.func.jacrev(lambda u: u.sin())(y[0])
    assert jacobian.is_cuda
    assert torch.allclose(jacobian.cpu(), torch.diag(x[0].cos()))
    assert torch.equal(torch.func.vmap(lambda u: u.sum())(y).cpu(), x.sum(-1))
