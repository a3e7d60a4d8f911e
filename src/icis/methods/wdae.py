"""wDAE-GNN: predictions refined by a denoising graph network (Gidaris & Komodakis, CVPR 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from icis.errors import IcisError
from icis.memory import freed_memory_kept
from icis.methods.base import Injection, InjectionProblem, Method, Progress
from icis.methods.icis import Icis
from icis.methods.mlp import Mlp
from icis.methods.training import SLOPE_THRESHOLDS

if TYPE_CHECKING:
    import torch

    from icis.methods.graph import DenoisingGraph

Count = Annotated[int, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
MAX_EPOCHS = 1000


class Wdae(Method):
    """The MLP's (or ICIS's) predictions, refined by a graph network over all class weights.

    Readings chosen where the facts leave a choice:

    - the network knows only edges to the ``neighbours`` nearest rows, found once from the rows fed
      to it (with their noise in training), and keeps them in all layers; inner products as they
      are, rows not normalised;
    - linear maps before a BatchNorm have no bias, the one to residual and gate has; nothing is
      normalised to length 1 between layers; LeakyReLU and BatchNorm with PyTorch's constants;
    - the layer's input to which an update is concatenated is x_i, without the message;
    - the noise is added to the whole input and is no part of the target; ``in`` in
      out = in + sigmoid(gate)·residual is the noisy input;
    - the loss covers all rows of all four copies.
    """

    side_by_side: ClassVar[bool] = False

    method: Literal["wdae"] = "wdae"
    base: Literal["mlp", "icis"] = "mlp"
    """Which method's predictions are refined."""
    mlp: Mlp = Mlp()
    """Settings of the base ``mlp``."""
    icis: Icis = Icis()
    """Settings of the base ``icis``."""
    target: Literal["published", "clean"] = "published"
    """What the network is to return for copies with a quarter of the rows replaced: the copies as
    they are, as published, or the true rows (a denoising autoencoder proper)."""
    layers: Count = 2
    """Rounds of messages; the last gives the output."""
    hidden_factor: Count = 3
    """Size of hidden layers and messages, in units of D + 1."""
    neighbours: Count = 10
    """From how many rows a row hears."""
    temperature: Annotated[float, Field(gt=0)] = 5.0
    """Factor of the inner products in the softmax that weighs the neighbours."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.7
    noise: NotNegative = 0.08
    """Standard deviation of the Gaussian noise on the input in training."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """Of Adam, with betas (0.9, 0.999) and no weight decay."""
    max_epochs: Count = MAX_EPOCHS
    """Of the graph network; an epoch is one step."""
    slope_threshold: NotNegative = SLOPE_THRESHOLDS["l2"]
    """The slope stop's threshold, of the graph network."""

    @model_validator(mode="after")
    def _check(self) -> Wdae:
        unused = "icis" if self.base == "mlp" else "mlp"
        # not the batch size, which resolve() fills in for both
        idle = sorted(getattr(self, unused).differences().keys() - {"batch_size"})
        if idle:
            raise PydanticCustomError(
                "base",
                "{unused}.{key} has no effect with base: {base}; leave it out or "
                "set base: {unused}",
                {"unused": unused, "key": idle[0], "base": self.base},
            )
        if self.base_method.rescale != "none":
            raise PydanticCustomError(
                "base",
                "the graph network takes the base's rows as they are: {base}.rescale has no "
                "effect, set rescale of wdae itself",
                {"base": self.base},
            )
        return self

    def resolve(self, *, batch_size: int) -> Self:
        """Return the method with the data set's batch size in bases that have none of their own."""
        resolved = {
            "mlp": self.mlp.resolve(batch_size=batch_size),
            "icis": self.icis.resolve(batch_size=batch_size),
        }
        return self.model_copy(update=resolved)

    @property
    def base_method(self) -> Mlp | Icis:
        """Return the method whose predictions are refined."""
        return self.mlp if self.base == "mlp" else self.icis

    @property
    def selection(self) -> str:
        """Say how the numbers of epochs of base and graph network were selected."""
        capped = f", capped at {self.max_epochs} epochs" if self.max_epochs < MAX_EPOCHS else ""
        return (
            f"{self.base}: {self.base_method.selection}; graph: slope of the training loss below "
            f"{self.slope_threshold:g}, at most {self.max_epochs} epochs{capped}"
        )

    def fit(
        self, problem: InjectionProblem, *, seed: int, device: str, progress: Progress | None = None
    ) -> Injection:
        """Train base and graph network on the known classes and refine the rows of all classes."""
        import torch

        self._check_neighbours(len(problem.known_head.classes))
        # building layers draws from the CPU's global generator, though the values are not used
        with torch.random.fork_rng(devices=[]):
            base = self.base_method.fit(problem, seed=seed, device=device, progress=progress)
        return self.refined(problem, base, seed=seed, device=device, progress=progress)

    def refined(
        self,
        problem: InjectionProblem,
        base: Injection,
        *,
        seed: int,
        device: str,
        progress: Progress | None = None,
    ) -> Injection:
        """Train the graph network on what the base predicts and refine the rows of all classes."""
        import torch

        self._check_neighbours(len(problem.known_head.classes))
        with torch.random.fork_rng(devices=[]), freed_memory_kept():  # the former as in fit
            return self._refined(problem, base, seed, device, progress)

    def _refined(
        self,
        problem: InjectionProblem,
        base: Injection,
        seed: int,
        device: str,
        progress: Progress | None,
    ) -> Injection:
        import torch

        from icis.heads import Head

        assert isinstance(base.joint, Head)
        assert base.seen_predictions is not None
        later = None
        if progress is not None:
            heard = progress

            def later(epoch: int, loss: float) -> None:
                heard(base.epochs + epoch, loss)

        clean = problem.known_head.joined().to(device)
        network, losses = self._train(clean, base.seen_predictions.to(device), seed, device, later)
        network.eval()
        with torch.no_grad():
            refined = self.refine(network, base.joint.joined().to(device)[None])
        history = {f"base_{term}": values for term, values in base.history.items()}
        return Injection(
            Head.from_joined(refined.squeeze(0).cpu(), base.joint.classes),
            history={"loss": losses, **history},
        )

    def refine(self, network: DenoisingGraph, graphs: torch.Tensor) -> torch.Tensor:
        """Return the network's answer [B, C, D + 1] to graphs of class rows [B, C, D + 1]."""
        from icis.methods.graph import edges

        found, shares = edges(graphs, neighbours=self.neighbours, temperature=self.temperature)
        answer: torch.Tensor = network(graphs.flatten(0, 1), found, shares)
        return answer.view(graphs.shape)

    def _check_neighbours(self, known: int) -> None:
        if self.neighbours > known - 1:
            lower = f"set neighbours to {known - 1} or less, or " if known > 1 else ""
            raise IcisError(
                f"wdae: {known} known classes are too few for {self.neighbours} neighbours other "
                f"than the class itself: {lower}learn from at least {self.neighbours + 1} classes"
            )

    def _train(
        self,
        clean: torch.Tensor,
        predicted: torch.Tensor,
        seed: int,
        device: str,
        progress: Progress | None,
    ) -> tuple[DenoisingGraph, list[float]]:
        from icis.methods.encoders import SlopeStop
        from icis.methods.graph import DenoisingGraph, train_graph

        network = DenoisingGraph(
            clean.shape[1],
            layers=self.layers,
            factor=self.hidden_factor,
            dropout=self.dropout,
            seed=seed,
            device=device,
        )
        losses = train_graph(
            network,
            clean,
            predicted,
            refine=self.refine,
            noise=self.noise,
            target=self.target,
            learning_rate=self.learning_rate,
            max_epochs=self.max_epochs,
            stop=SlopeStop(self.slope_threshold),
            seed=seed,
            progress=progress,
        )
        return network, losses
