"""The keys that a recipe may have: their types, how text becomes a value, and what an unknown key was meant to be."""

import contextlib
import dataclasses
import types
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from mini_r1.program.problems import Problem, nearest, shown
from mini_r1.recipe.text import NULL, ON_COMMAND_LINE, RecipeError, Written

_RENAMED = {
    "dataset_name": "dataset_id_or_path",
    "evaluation_strategy": "eval_strategy",
    "include_inputs_for_metrics": "include_for_metrics",
    "max_completion_len": "max_completion_length",
    "no_cuda": "use_cpu",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "push_to_hub_model_id": "hub_model_id",
    "torch_dtype": "dtype",
    "vllm_guided_decoding_regex": "vllm_structured_outputs_regex",
    "vllm_max_model_len": "vllm_max_model_length",
}
_GONE = ("fp16_backend", "half_precision_backend", "include_tokens_per_second", "jit_mode_eval", "past_index")
# What became of keys that recipes for TRL 0.14 and transformers 4 have.
FORMER_KEYS = {
    **{old: f"it is called {new} now" for old, new in _RENAMED.items()},
    **dict.fromkeys((*_GONE, "use_ipex", "use_mps_device"), "leave it out"),
    "adafactor": "write optim: adafactor",
    "dataset_train_split": "the key is dataset_split; Mini-R1 holds out test_size of it by itself",
    "dataset_test_split": "leave it out: Mini-R1 holds out test_size of the puzzles by itself",
    "dispatch_batches": "write it inside accelerator_config",
    "fsdp_min_num_params": "write min_num_params inside fsdp_config",
    "fsdp_transformer_layer_cls_to_wrap": "write transformer_layer_cls_to_wrap inside fsdp_config",
    "group_by_length": "write train_sampling_strategy: group_by_length",
    "logging_dir": "set the environment variable TENSORBOARD_LOGGING_DIR instead",
    "overwrite_output_dir": "leave it out: a run resumes in its output_dir; for a new one give another output_dir",
    "push_to_hub_organization": "write the organization into hub_model_id: organization/name",
    "push_to_hub_token": "it is called hub_token now; better log in with `hf auth login`",
    "save_safetensors": "leave it out: weights are always saved as safetensors",
    "split_batches": "write it inside accelerator_config",
    "vllm_device": "it is called vllm_gpus now, such as vllm_gpus: 3; left out, the last visible GPU generates",
    "vllm_dtype": "leave it out: the server has the model's own; for another, vllm_server_args: --dtype bfloat16",
    "vllm_enable_prefix_caching": "leave it out: vLLM does so by itself",
    "warmup_ratio": "write warmup_steps with the same number: below 1 it is a share of all steps",
    "env": "a recipe sets no environment variables: export them in the shell, as in `export NCCL_DEBUG=INFO`",
}
# Where TRL and transformers take more, or in fact need more, than the types that they declare.
TYPES: dict[str, Any] = {
    "fsdp": bool | str | list[str] | None,
    "max_completion_length": int,
    "num_generations": int,
    "resume_from_checkpoint": bool | str | None,
    "scale_rewards": bool | Literal["group", "batch", "none"],
}
SHOWN = 15  # names of an enumeration, in a message
BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "y", "t", "1"), True),
    **dict.fromkeys(("false", "no", "off", "n", "f", "0"), False),
}
_NAMES = {int: "a whole number", float: "a number", str: "text", dict: "a mapping", type(None): NULL}
_BRACKETS = {"{": dict, "[": list}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """A key of a recipe: its type, as the members of a union, its default, and its help text."""

    name: str
    kinds: tuple[Any, ...]
    default: Any
    help: str

    def needs(self, most: int = SHOWN) -> str:
        """The type in words, such as "text, a list of texts, or null", with so many names of an enumeration at most."""
        kinds = sorted(self.kinds, key=lambda kind: kind is type(None))  # null last
        words = [word for kind in kinds for word in (("true", "false") if kind is bool else _describe(kind, most))]
        *first, last = words
        comma = "," if len(first) > 1 or list in map(_kind, kinds) else ""
        return f"{', '.join(first)}{comma} or {last}" if first else last


def keys_of(*classes: type) -> dict[str, Key]:
    """The keys that dataclasses have as fields."""
    found = {}
    for kind in classes:
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if field.init:
                factory = field.default_factory
                default = field.default if factory is dataclasses.MISSING else factory()
                note = " ".join(str(field.metadata.get("help", "")).split())
                hint = TYPES.get(field.name, hints[field.name])
                choices = tuple(field.metadata.get("choices", ()))
                found[field.name] = Key(field.name, _members(hint, choices), default, note)
    return found


def _members(hint: Any, choices: tuple[str, ...] = ()) -> tuple[Any, ...]:
    """A union's members, narrowest first; text beside an enumeration means its names and is left out."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if choices:
        kinds = tuple(Literal[choices] if kind is str else kind for kind in kinds)
    order = (type(None), bool, Literal, Enum, int, float, dict, str, list)
    if any(_is_enum(kind) for kind in kinds):
        kinds = tuple(kind for kind in kinds if kind is not str)
    return tuple(sorted(kinds, key=lambda kind: order.index(_kind(kind)) if _kind(kind) in order else len(order)))


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _kind(hint: Any) -> Any:
    """The class that a type is read as: `list[str]` as a list, `SchedulerType` as an enumeration."""
    return Enum if _is_enum(hint) else get_origin(hint) or hint


def _choices(hint: Any) -> list[str]:
    """The names that an enumeration or Literal allows."""
    return [str(item.value) for item in hint] if _is_enum(hint) else [shown(item) for item in get_args(hint)]


def _describe(hint: Any, most: int) -> list[str]:
    """A type in words; none for an object, which no recipe can write."""
    kind = _kind(hint)
    if kind in (Enum, Literal):
        names = _choices(hint)
        more = ", ... (--help-all shows all)" if len(names) > most else ""
        return [f"one of {', '.join(names[:most])}{more}" if len(names) > 1 else names[0]]
    if kind is list:
        (item,) = get_args(hint)
        return [f"a list of {_PLURALS[item] if item in _PLURALS else f'names, each {_describe(item, most)[0]}'}"]
    return [_NAMES[kind]] if kind in _NAMES else []


def negated(name: str, written: Written, known: Mapping[str, Key]) -> tuple[str, Written]:
    """`--no_flag` as `flag: false`; everything else as it is."""
    key = known.get(name.removeprefix("no_"))
    if name in known or key is None or bool not in key.kinds or written.value is not None:
        return name, written
    return key.name, Written("false", written.where)


def read_value(key: Key, written: Written) -> Any:
    """The value of a key, of its type.

    Raises:
        RecipeError: what is written is of another type.
    """
    value = (
        "true" if written.value is None and bool in key.kinds and written.where == ON_COMMAND_LINE else written.value
    )
    fix = f"correct it {written.where}, or leave {key.name} out (default: {shown(key.default)})"
    if value is None:
        raise RecipeError(f"{key.name} has no value {written.where}; needed: {key.needs()}. Fix: {fix}")
    kinds = key.kinds
    bracket = _BRACKETS.get(value.lstrip()[:1]) if isinstance(value, str) else None
    if bracket in map(_kind, kinds):
        kinds = tuple(kind for kind in kinds if _kind(kind) is bracket)  # not a file's name
    for kind in kinds:
        with contextlib.suppress(ValueError, KeyError, yaml.YAMLError):
            return _read(value, kind)
    names = [name for kind in kinds if _kind(kind) in (Enum, Literal) for name in _choices(kind)]
    near = nearest(str(value), names)
    if isinstance(value, list) and written.where == ON_COMMAND_LINE:
        value = " ".join(value)
        fix = f"put a text of several words in quotes; or {fix}"
    raise RecipeError(str(Problem(key.name, repr(value), key.needs(), f"did you mean {near}?" if near else fix)))


def _read(value: Any, hint: Any) -> Any:
    """What is written, as a type's value.

    Raises:
        ValueError, KeyError, YAMLError: it is of another type.
    """
    kind = _kind(hint)
    if isinstance(value, str) and _BRACKETS.get(value.lstrip()[:1]) is kind:  # on the command line
        value = yaml.load(value, Loader=yaml.BaseLoader if kind is list else yaml.SafeLoader)
    if kind is list and not isinstance(value, dict):
        (item,) = get_args(hint)
        return [_read(part, item) for part in (value if isinstance(value, list) else [value])]
    if kind in (dict, str) and isinstance(value, kind):
        return value
    if not isinstance(value, str):
        raise ValueError
    if kind is bool:
        return BOOLEANS[value.lower()]
    if kind in (Enum, Literal):
        place = _choices(hint).index(value)
        return value if kind is Enum else get_args(hint)[place]
    if kind in (int, float):
        return _number(value, kind)
    if kind is type(None) and value in (NULL, "~"):
        return None
    raise ValueError


def _number(text: str, kind: type) -> float:
    """A number; a whole one stays whole, as it is shown in records."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
    if kind is float:
        return number
    if number != number // 1:  # not 2.5, but 1e4
        raise ValueError
    return int(number)


def unknown_key(name: str, known: Mapping[str, Key], where: str) -> str:
    """What to say of an unknown key: what became of it, or which one was probably meant."""
    if name in FORMER_KEYS:
        return f"{name} ({where}) is not a key: {FORMER_KEYS[name]}"
    near = nearest(name, known)
    advice = f"did you mean {near}?" if near else "--help shows those of Mini-R1, --help-all every key"
    return f"{name} ({where}) is not a key: {advice}"
