"""The sizes of a model that decide its memory, read from its config alone.

    parameters = L (2hq + 2hk + 3hi + 2h + extras) + h + Vh (2Vh unless the head is tied)

    symbol  in code                what it is
    L       layers                 decoder layers
    h       hidden                 width of the residual stream
    i       intermediate           width inside the MLP
    q       heads * head_dim       rows of q_proj
    k       kv_heads * head_dim    rows of k_proj and of v_proj
    V       vocab                  rows of the embedding

`extras` are the further parameters of one layer: the biases of Qwen2.5's q, k and v, the two norms
of Qwen3's queries and keys; a Llama has none. Mixtures of experts, vision towers and models whose
layers differ from one another are left out: from_config refuses them by name.

Source of each preset: the model's own config.json on its hub page, written into
data/model_shapes.json.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from labkit import project

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
PROJECTIONS = (*ATTENTION, *MLP)
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")


class SetupError(project.LabkitError, ValueError):
    """A field whose value cannot be; the text names the field, the value and the range."""


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a dense decoder of the Llama kind; hashable and without any weights."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    max_length: int
    architecture: str = "llama"
    attention_bias: bool = False  # biases on all four attention maps (Llama, Qwen3)
    mlp_bias: bool = False
    rope_theta: float = 10000.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and (type(value) is not int or value < 1):
                raise SetupError(f"{field.name}={value!r}: a whole number, at least 1")
        if self.architecture not in ARCHITECTURES:
            raise SetupError(
                f"model_type={self.architecture!r}: one of {', '.join(ARCHITECTURES)}, whose "
                "layers have the seven projections of a Llama"
            )
        if self.heads % self.kv_heads:
            raise SetupError(f"kv_heads={self.kv_heads}: a divisor of the {self.heads} query heads")

    @property
    def q(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """(out, in) of the seven linear maps of one layer."""
        h, i = self.hidden, self.intermediate
        attention = ((self.q, h), (self.kv, h), (self.kv, h), (h, self.q))
        return dict(zip(PROJECTIONS, (*attention, (i, h), (i, h), (h, i)), strict=True))

    @property
    def biased(self) -> tuple[str, ...]:
        """The maps that carry a bias."""
        attention = ATTENTION[:3] if self.architecture == "qwen2" else ()
        if self.attention_bias and self.architecture in ("llama", "qwen3"):
            attention = ATTENTION
        mlp = MLP if self.mlp_bias and self.architecture == "llama" else ()
        return (*attention, *mlp)

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys pass a norm of their own (Qwen3)."""
        return self.architecture == "qwen3"

    @property
    def extras(self) -> int:
        """Parameters of one layer beyond a Llama's: biases, and norms of queries and keys."""
        biases = sum(self.projections[name][0] for name in self.biased)
        return biases + (2 * self.head_dim if self.qk_norm else 0)

    @property
    def linear(self) -> int:
        """Values in the projections of all layers: what 4 bits are for."""
        return self.layers * sum(out * wide for out, wide in self.projections.values())

    @property
    def parameters(self) -> int:
        """All parameters; a tied embedding counts once."""
        from labkit.memory.parts import parameters

        return parameters(self)

    @classmethod
    def preset(cls, name: str) -> "ModelShape":
        """A model of data/model_shapes.json by its short name, such as "llama-3.2-1b".

        Raises:
            SetupError: if there is no such name.
        """
        known = _presets()
        if name not in known:
            raise SetupError(f"model={name!r}: one of {', '.join(known)}")
        return known[name]

    @classmethod
    def presets(cls) -> tuple[str, ...]:
        """The names that `preset` knows, family by family."""
        return tuple(_presets())

    @classmethod
    def from_config(cls, source: "Mapping[str, Any] | str | Path | object") -> "ModelShape":
        """The shape in a config: a mapping, a transformers config, a folder or file, or an id.

        An id is first looked up among the presets, by short name or by hub id; only an unknown
        one is asked of the hub.

        Raises:
            SetupError: an unknown kind of model, or a config without a size.
            HubError: an id whose config.json cannot be had.
        """
        if isinstance(source, Mapping):
            return _from_mapping(source)
        if not isinstance(source, str | Path):
            return _from_mapping(source.to_dict())
        path = Path(source).expanduser()
        if path.is_dir():
            path = path / "config.json"
        if path.is_file():
            return _from_mapping(_read(path), path.parent.name)
        short = _ids().get(str(source).lower(), str(source).lower())
        if short in _presets():
            return cls.preset(short)
        if "/" not in str(source):
            raise SetupError(
                f"model={str(source)!r}: a folder with a config.json, a hub id such as "
                f"owner/name, or one of {', '.join(_presets())}"
            )
        from labkit import hub

        folder = hub.fetch(str(source), ("config.json",))
        return _from_mapping(_read(folder / "config.json"), str(source).split("/")[-1].lower())


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SetupError(f"{path}: broken; a config.json is a JSON object") from error
    if not isinstance(found, dict):
        raise SetupError(f"{path}: holds a {type(found).__name__}; a config.json is a JSON object")
    return found


def _from_mapping(config: Mapping[str, Any], name: str = "") -> ModelShape:
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise SetupError(
            f"model_type={kind!r}: one of {', '.join(ARCHITECTURES)}, whose layers have the "
            "seven projections of a Llama"
        )
    heads = _size(config, "num_attention_heads")
    hidden = _size(config, "hidden_size")
    return ModelShape(
        name=name or str(config.get("_name_or_path") or kind),
        hidden=hidden,
        intermediate=_size(config, "intermediate_size"),
        layers=_size(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden // heads,
        vocab=_size(config, "vocab_size"),
        tied=bool(config.get("tie_word_embeddings", False)),
        max_length=_size(config, "max_position_embeddings"),
        architecture=kind,
        attention_bias=bool(config.get("attention_bias", False)),
        mlp_bias=bool(config.get("mlp_bias", False)),
        rope_theta=_theta(config),
    )


def _size(config: Mapping[str, Any], key: str) -> int:
    if key not in config:
        raise SetupError(f"{key} is missing from the config: a whole number, at least 1")
    return config[key]


def _theta(config: Mapping[str, Any]) -> float:
    """The base of the rotary angles; newer configs keep it among the parameters of the rotation."""
    rope = config.get("rope_parameters") or {}
    return float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)


@functools.cache
def _file() -> dict[str, dict[str, Any]]:
    return _read(project.data("model_shapes.json"))["models"]


@functools.cache
def _presets() -> dict[str, ModelShape]:
    return {
        name: _from_mapping(entry["config"], name)
        if "config" in entry
        else _from_mapping(_read(project.data(*entry["file"].split("/"))), name)
        for name, entry in _file().items()
    }


@functools.cache
def _ids() -> dict[str, str]:
    """Hub ids in lower case, each with the short name of its shape."""
    return {hub_id.lower(): name for name, entry in _file().items() for hub_id in entry["ids"]}
