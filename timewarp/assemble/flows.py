"""From a checkpoint to a flow, and from a flow and a peptide to a proposal."""

from __future__ import annotations

from timewarp.assemble.peptide import Peptide
from timewarp.flow.cartesian import Cartesian, CartesianConfig
from timewarp.flow.cartesian_proposal import CartesianProposal
from timewarp.flow.growth import Growth
from timewarp.flow.internal import Internal, InternalConfig, InternalProposal
from timewarp.flow.tokens import Tokens
from timewarp.flow.warmth import AS_TRAINED, DEFENSIVE
from timewarp.kernel import Proposal
from timewarp.training.checkpoint import Checkpoint, CheckpointError

CHART = "chart."  # what the names of tensors that are not weights begin with: the chart of an adapted flow


def load_flow(checkpoint: Checkpoint) -> Internal | Cartesian:
    """The flow of a checkpoint, with its weights, ready to be evaluated.

    Raises:
        CheckpointError: if its kind, its config or its weights are not those of a flow.
    """
    made = {"internal": (Internal, InternalConfig), "cartesian": (Cartesian, CartesianConfig)}
    kind = checkpoint.card.get("kind")
    if kind not in made:
        raise CheckpointError(f"expected a checkpoint of kind {' or '.join(made)}, found {kind}; train it again")
    flow, config = made[kind]
    try:
        model = flow(config(**checkpoint.card["config"]))
        model.load_state_dict({k: v for k, v in checkpoint.tensors.items() if not k.startswith(CHART)})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise CheckpointError(f"expected the config and weights of an {kind} flow, found others: {said}") from error
    return model.eval().requires_grad_(False)


def bound(flow: Internal | Cartesian, peptide: Peptide, warm: bool = True) -> Proposal:
    """The flow as a proposal for one peptide, on the flow's device, where the peptide's energy has to be.

    The Cartesian flow describes an atom as the internal one does, but in the order of the peptide's atoms.

    Args:
        flow: the networks.
        peptide: that they are bound to.
        warm: whether some proposals are broader than the flow was trained to make them (`Warmth`); not in training.
    """
    device = next(flow.parameters()).device
    chart, temperature = peptide.chart, peptide.temperature
    if isinstance(flow, Cartesian):
        tokens = Tokens.of(peptide.molecule, chart, temperature)
        return CartesianProposal(flow, tokens.atoms[chart.back].to(device))
    tokens = Tokens.of(peptide.molecule, chart, temperature, flow.config.grid)
    chart = chart.to(device)
    # on a GPU each process would compile the loops anew, for half a minute
    compiled = getattr(peptide.potential, "compiled", False) and device.type == "cpu"
    growth = Growth(peptide.molecule, chart, temperature, compiled).to(device)
    warmth = DEFENSIVE if warm and not flow.config.velocities else AS_TRAINED
    return InternalProposal(flow, tokens.to(device), peptide.stiff.on(chart), growth, warmth)
