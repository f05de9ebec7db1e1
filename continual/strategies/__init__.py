"""The table of continual methods and their options. To add one, write its file and its line here."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparserl.config import build
from sparserl.continual.learner import Kind
from sparserl.continual.named_objects import imported, is_named_object
from sparserl.continual.strategies.afaf import AFAF, AFAFOptions
from sparserl.continual.strategies.anew import Joint, Scratch
from sparserl.continual.strategies.class_autoencoder import ClassAutoencoder, ClassAutoencoderOptions
from sparserl.continual.strategies.class_means import FlyCode, FlyCodeOptions, NearestMean, NearestMeanOptions
from sparserl.continual.strategies.class_pca import ClassPCA, ClassPCAOptions
from sparserl.continual.strategies.clonex import ClonEx, ClonExOptions
from sparserl.continual.strategies.der import DER, DEROptions
from sparserl.continual.strategies.icarl import ICaRL, ICaRLOptions
from sparserl.continual.strategies.linear_forms import (
    RandomFeatures,
    RandomFeaturesOptions,
    Ridge,
    RidgeOptions,
    StreamingLDA,
    StreamingLDAOptions,
)
from sparserl.continual.strategies.lwf import LwF, LwFOptions
from sparserl.continual.strategies.memory import AGEM, AGEMOptions, Replay, ReplayOptions
from sparserl.continual.strategies.nispa import NISPA, NISPAOptions
from sparserl.continual.strategies.options import Options
from sparserl.continual.strategies.packnet import PackNet, PackNetOptions
from sparserl.continual.strategies.penalty import (
    EWC,
    L2,
    MAS,
    SI,
    EWCOptions,
    L2Options,
    MASOptions,
    OnlineEWC,
    OnlineEWCOptions,
    SIOptions,
)
from sparserl.continual.strategies.spacenet import SpaceNet, SpaceNetOptions
from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.strategies.wsn import WSN, WSNOptions
from sparserl.errors import ConfigError, shown, unknown_name


@dataclass(frozen=True)
class MethodOptions:
    """Options of all methods; a method reads its own group."""

    l2: L2Options = field(default_factory=L2Options)
    """l2."""
    ewc: EWCOptions = field(default_factory=EWCOptions)
    """ewc."""
    online_ewc: OnlineEWCOptions = field(default_factory=OnlineEWCOptions)
    """online_ewc."""
    si: SIOptions = field(default_factory=SIOptions)
    """si."""
    mas: MASOptions = field(default_factory=MASOptions)
    """mas."""
    lwf: LwFOptions = field(default_factory=LwFOptions)
    """lwf."""
    replay: ReplayOptions = field(default_factory=ReplayOptions)
    """replay."""
    agem: AGEMOptions = field(default_factory=AGEMOptions)
    """agem."""
    der: DEROptions = field(default_factory=DEROptions)
    """der."""
    icarl: ICaRLOptions = field(default_factory=ICaRLOptions)
    """icarl."""
    clonex: ClonExOptions = field(default_factory=ClonExOptions)
    """clonex."""
    packnet: PackNetOptions = field(default_factory=PackNetOptions)
    """packnet."""
    spacenet: SpaceNetOptions = field(default_factory=SpaceNetOptions)
    """spacenet, static_sparse."""
    afaf: AFAFOptions = field(default_factory=AFAFOptions)
    """afaf."""
    wsn: WSNOptions = field(default_factory=WSNOptions)
    """wsn."""
    nispa: NISPAOptions = field(default_factory=NISPAOptions)
    """nispa."""
    nearest_mean: NearestMeanOptions = field(default_factory=NearestMeanOptions)
    """nearest_mean."""
    class_pca: ClassPCAOptions = field(default_factory=ClassPCAOptions)
    """class_pca."""
    class_autoencoder: ClassAutoencoderOptions = field(default_factory=ClassAutoencoderOptions)
    """class_autoencoder."""
    streaming_lda: StreamingLDAOptions = field(default_factory=StreamingLDAOptions)
    """streaming_lda."""
    ridge: RidgeOptions = field(default_factory=RidgeOptions)
    """ridge."""
    random_features: RandomFeaturesOptions = field(default_factory=RandomFeaturesOptions)
    """random_features."""
    fly_code: FlyCodeOptions = field(default_factory=FlyCodeOptions)
    """fly_code."""
    own: Options = field(default_factory=Options)
    """A method outside of sparserl."""

    def resolve_options(self, kind: Kind) -> None:
        """Puts the defaults of a kind of learner in place of None; for `__post_init__` of a frozen config.

        Raises:
            ConfigError: If an option is given that the kind does not have.
        """
        for group in GROUPS:
            object.__setattr__(self, group, getattr(self, group).of_kind(kind))


OWN = "own"
"""Group of options of methods outside of sparserl."""
ENTRY_POINTS = "sparserl.strategies"
"""Group of entry points by which installed packages bring methods."""
GROUPS = tuple(group.name for group in dataclasses.fields(MethodOptions))
"""Groups of options that belong to methods."""


@dataclass(frozen=True)
class MethodSpec:
    """A continual method.

    Attributes:
        summary: One line for `sparserl list methods`.
        strategy: Its class.
        options: Its group in `MethodOptions`; None if it has no options.
        fixed: Options of that group that make the method what it is, by name.
        defaults: Values of other groups of an agent's options that it starts from, by group.
        refused: Kind of learner that it does not serve -> why, and what to use.
    """

    summary: str
    strategy: type[Strategy]
    options: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    refused: Mapping[Kind, str] = field(default_factory=dict)


# No penalty or projection holds a connection that is dropped: on halfcheetah_gravity, with the rewiring of ds_sac, ewc
# forgets as much as finetune (results/continual).
FIXED_TOPOLOGY = {"topology": {"method": "static"}}


def _closed_form(summary: str, strategy: type[Strategy], options: str) -> MethodSpec:
    """A method without a network, which classifies."""
    refused: dict[Kind, str] = {
        "agent": f"{options} answers by statistics of classes, which an agent does not have: use --method ewc"
    }
    return MethodSpec(summary, strategy, options, refused=refused)


STRATEGIES: dict[str, MethodSpec] = {
    "naive": MethodSpec(
        "fine-tuning: train on one task after the other",
        Strategy,
        refused={"agent": "naive is called finetune where agents learn: use --method finetune"},
    ),
    "finetune": MethodSpec(
        "train on one task after the other",
        Strategy,
        refused={"classifier": "finetune is called naive where classifiers learn: use --method naive"},
    ),
    "joint": MethodSpec(
        "a new network at each task, trained on all tasks so far",
        Joint,
        refused={
            "agent": "joint trains on the samples of all tasks so far, which an agent would have to collect anew: use "
            "--method replay, which keeps all transitions"
        },
    ),
    "scratch": MethodSpec(
        "a fresh agent per task: the reference of forward transfer",
        Scratch,
        refused={"classifier": "scratch is the reference of agents' forward transfer: use --method joint"},
    ),
    "l2": MethodSpec("pull all weights back alike (Hsu et al. 2018)", L2, "l2", defaults=FIXED_TOPOLOGY),
    "ewc": MethodSpec("elastic weight consolidation (Kirkpatrick et al. 2017)", EWC, "ewc", defaults=FIXED_TOPOLOGY),
    "online_ewc": MethodSpec(
        "EWC with one anchor (Schwarz et al. 2018)", OnlineEWC, "online_ewc", defaults=FIXED_TOPOLOGY
    ),
    "si": MethodSpec("synaptic intelligence (Zenke et al. 2017)", SI, "si", defaults=FIXED_TOPOLOGY),
    "mas": MethodSpec("memory aware synapses (Aljundi et al. 2018)", MAS, "mas", defaults=FIXED_TOPOLOGY),
    "lwf": MethodSpec(
        "learning without forgetting: the old network teaches (Li and Hoiem 2016)",
        LwF,
        "lwf",
        refused={"agent": "lwf teaches the probabilities of classes, which an actor does not have: use --method ewc"},
    ),
    "replay": MethodSpec(
        "train on stored samples as well (Hsu et al. 2018), for agents on all transitions (Wolczyk et al. 2021)",
        Replay,
        "replay",
        defaults={"border": {"buffer": "kept"}},
    ),
    "agem": MethodSpec(
        "project gradients against stored samples (Chaudhry et al. 2019)", AGEM, "agem", defaults=FIXED_TOPOLOGY
    ),
    "der": MethodSpec(
        "train on stored samples toward their stored outputs; DER++ by option (Buzzega et al. 2020)",
        DER,
        "der",
        refused={"agent": "der keeps outputs of a classifier: use --method clonex, which keeps those of an actor"},
    ),
    "icarl": MethodSpec(
        "stored exemplars of each class, the nearest mean of which answers (Rebuffi et al. 2017)",
        ICaRL,
        "icarl",
        refused={"agent": "icarl keeps exemplars of classes, which an agent does not have: use --method clonex"},
    ),
    "clonex": MethodSpec(
        "clone earlier policies on stored observations, and explore with the best (Wolczyk et al. 2022)",
        ClonEx,
        "clonex",
        defaults={"border": {"exploration": "best_return"}},
        refused={
            "classifier": "clonex clones the policies of agents: use --method der, which keeps a classifier's outputs"
        },
    ),
    "packnet": MethodSpec(
        "prune and freeze a share of the weights per task (Mallya and Lazebnik 2018)", PackNet, "packnet"
    ),
    "spacenet": MethodSpec("sparse sub-networks between free neurons (Sokar et al. 2021)", SpaceNet, "spacenet"),
    "static_sparse": MethodSpec(
        "SpaceNet whose connections stay where they are",
        SpaceNet,
        "spacenet",
        fixed={"rewire": False},
        refused={"agent": "static_sparse is for classifiers: use --method spacenet --spacenet.rewire-interval 0"},
    ),
    "afaf": MethodSpec(
        "sub-networks that read neurons of related earlier tasks (Sokar et al. 2022)",
        AFAF,
        "afaf",
        refused={
            "agent": "afaf reuses neurons that answer to a class, which an agent's actions do not have: use --method "
            "spacenet"
        },
    ),
    "wsn": MethodSpec(
        "winning sub-networks: each task uses the connections of highest score (Kang et al. 2022)",
        WSN,
        "wsn",
        refused={
            "agent": "wsn chooses connections anew at each step, which recorded updates of agents cannot follow: use "
            "--method packnet, which gives weights to tasks as well"
        },
    ),
    "nispa": MethodSpec(
        "stable units whose inputs never change, connections rewired to plastic ones (Gurbuz and Dovrolis 2022)",
        NISPA,
        "nispa",
        refused={"agent": "nispa ends its phases by accuracy, which an agent does not have: use --method spacenet"},
    ),
    "nearest_mean": _closed_form("no network: the class whose mean is nearest", NearestMean, "nearest_mean"),
    "class_pca": _closed_form("no network: principal components of each class", ClassPCA, "class_pca"),
    "class_autoencoder": _closed_form(
        "a sparse linear autoencoder per class, whose connections move", ClassAutoencoder, "class_autoencoder"
    ),
    "streaming_lda": _closed_form(
        "no network: linear discriminant analysis (Hayes and Kanan 2020)", StreamingLDA, "streaming_lda"
    ),
    "ridge": _closed_form("no network: ridge regression on the features", Ridge, "ridge"),
    "random_features": _closed_form(
        "ridge regression on a sparse random layer (as Zhuang et al. 2022, McDonnell et al. 2023)",
        RandomFeatures,
        "random_features",
    ),
    "fly_code": _closed_form("the nearest mean of binary sparse codes (Shen et al. 2023)", FlyCode, "fly_code"),
}


def methods_of(kind: Kind) -> dict[str, MethodSpec]:
    """The methods that serve a kind of learner."""
    return {name: spec for name, spec in STRATEGIES.items() if kind not in spec.refused}


def spec_of(name: str) -> MethodSpec | None:
    """A method of the table; of an entry point of `ENTRY_POINTS`, which the table goes before; or `module:Class`.

    Returns:
        None if there is no such method.

    Raises:
        ConfigError: If one outside of sparserl cannot be imported, or is no `Strategy`.
    """
    return STRATEGIES.get(name) or _outside(name)


def method_spec(name: str, kind: Kind) -> MethodSpec:
    """A method for a kind of learner.

    Raises:
        ConfigError: If there is no such method, with the closest name, or it does not serve the kind.
    """
    spec = spec_of(name)
    if spec is None:
        raise ConfigError(unknown_name("method", name, [*methods_of(kind), *entry_points()]))
    if kind in spec.refused:
        raise ConfigError(spec.refused[kind])
    return spec


def entry_points() -> dict[str, str]:
    """Methods that installed packages bring: name -> `module:Class`."""
    return {one.name: one.value for one in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def _outside(name: str) -> MethodSpec | None:
    named = name if is_named_object(name) else entry_points().get(name)
    if named is None:
        return None
    strategy = imported(named, "method")
    if not (isinstance(strategy, type) and issubclass(strategy, Strategy)):
        raise ConfigError(f"method {name!r} must be a subclass of sparserl.continual.Strategy, got {shown(strategy)}")
    options = strategy.Options
    if options is not None and not (isinstance(options, type) and issubclass(options, Options)):
        raise ConfigError(f"method {name!r}: Options must be a subclass of sparserl.continual.Options")
    summary = (strategy.__doc__ or named).strip().partition("\n")[0]
    by_loss = strategy.loss is not Strategy.loss or strategy.end_epoch is not Strategy.end_epoch
    by_steps = strategy.before_step is not Strategy.before_step or strategy.after_step is not Strategy.after_step
    only = f"{name} overrides loss or end_epoch, which classifiers alone call; for agents, override before_step"
    refused: dict[Kind, str] = {"agent": only} if by_loss and not by_steps else {}
    return MethodSpec(summary, strategy, None if options is None else OWN, refused=refused)


def options_type(name: str) -> type[Options]:
    """The type of the group `own`: that of a method outside of sparserl, or one without any option."""
    spec = None if name in STRATEGIES else spec_of(name)
    return Options if spec is None or spec.strategy.Options is None else spec.strategy.Options


def with_own(data: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Plain data of a config in which the options of a method outside of sparserl are built.

    Raises:
        ConfigError: If a key or value is wrong.
    """
    own = data.get(OWN, {})
    return {**data, OWN: build(options_type(method), own, f"{OWN}.") if isinstance(own, Mapping) else own}


def users_of_groups(method: str) -> dict[str, str | None]:
    """Method -> its group of options, of the table and of one outside of it."""
    groups = {name: one.options for name, one in STRATEGIES.items()}
    spec = None if method in STRATEGIES else spec_of(method)
    return {**groups, **({"module:Class": OWN} if spec is None else {method: spec.options})}


def make_strategy(name: str, kind: Kind, options: MethodOptions) -> Strategy:
    """A method of the table for a kind of learner.

    Raises:
        ConfigError: As `method_spec`, or if an option is given that the kind does not have.
    """
    spec = method_spec(name, kind)
    chosen: Any = None
    if spec.options is not None:
        chosen = dataclasses.replace(getattr(options, spec.options).of_kind(kind), **spec.fixed)
    return spec.strategy(chosen)


def own_options(name: str, options: MethodOptions, kind: Kind) -> dict[str, Any]:
    """What a config says of a method: group -> options that a kind of learner has, as plain data; empty without any."""
    group = method_spec(name, kind).options
    if group is None:
        return {}
    of_method = getattr(options, group)
    values = {name: getattr(of_method, name) for name in of_method.of(kind)}
    return {group: {name: list(one) if isinstance(one, tuple) else one for name, one in values.items()}}
