"""The keys that a recipe may have: their types, how text becomes a value, and what an unknown key was meant to be."""

import dataclasses
import types
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from mini_r1.program.problems import Problem, nearest, shown
from mini_r1.recipe.text import NULL, ON_COMMAND_LINE, RecipeError, Written

# What became of keys that recipes for TRL 0.14 and transformers 4 have.
FORMER_KEYS = {
    "adafactor": "write optim: adafactor",
    "dataset_name": "the key is dataset_id_or_path",
    "dataset_train_split": "the key is dataset_split; Mini-R1 holds out test_size of it by itself",
    "dataset_test_split": "leave it out: Mini-R1 holds out test_size of the puzzles by itself",
    "dispatch_batches": "write it inside accelerator_config",
    "evaluation_strategy": "it is called eval_strategy now",
    "fp16_backend": "leave it out",
    "fsdp_min_num_params": "write min_num_params inside fsdp_config",
    "fsdp_transformer_layer_cls_to_wrap": "write transformer_layer_cls_to_wrap inside fsdp_config",
    "group_by_length": "write train_sampling_strategy: group_by_length",
    "half_precision_backend": "leave it out",
    "include_inputs_for_metrics": "it is called include_for_metrics now",
    "include_tokens_per_second": "leave it out",
    "jit_mode_eval": "leave it out",
    "logging_dir": "set the environment variable TENSORBOARD_LOGGING_DIR instead",
    "max_completion_len": "the key is max_completion_length",
    "no_cuda": "it is called use_cpu now",
    "overwrite_output_dir": "leave it out: a run resumes in its output_dir; for a new one give another output_dir",
    "past_index": "leave it out",
    "per_gpu_eval_batch_size": "it is called per_device_eval_batch_size now",
    "per_gpu_train_batch_size": "it is called per_device_train_batch_size now",
    "push_to_hub_model_id": "it is called hub_model_id now",
    "push_to_hub_organization": "write the organization into hub_model_id: organization/name",
    "push_to_hub_token": "it is called hub_token now; better log in with `hf auth login`",
    "save_safetensors": "leave it out: weights are always saved as safetensors",
    "split_batches": "write it inside accelerator_config",
    "torch_dtype": "it is called dtype now",
    "use_ipex": "leave it out",
    "use_mps_device": "leave it out",
    "vllm_device": "it is called vllm_gpus now, such as vllm_gpus: 3; left out, the last visible GPU generates",
    "vllm_dtype": "leave it out: the server has the model's own; for another, vllm_server_args: --dtype bfloat16",
    "vllm_enable_prefix_caching": "leave it out: vLLM does so by itself",
    "vllm_guided_decoding_regex": "it is called vllm_structured_outputs_regex now",
    "vllm_max_model_len": "it is called vllm_max_model_length now",
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
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "a mapping"}


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """A key of a recipe: its type, as the members of a union, its default, and its help text."""

    name: str
    kinds: tuple[Any, ...]
    default: Any
    help: str

    def needs(self) -> str:
        """The type in words."""
        words = [_describe(kind) for kind in self.kinds if kind is not type(None)]
        return " or ".join([*words, *([NULL] if type(None) in self.kinds else [])])


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
    return [str(item.value) for item in hint] if _is_enum(hint) else [str(item) for item in get_args(hint)]


def _describe(hint: Any) -> str:
    kind = _kind(hint)
    if kind in (Enum, Literal):
        names = _choices(hint)
        return f"one of {', '.join(names[:SHOWN])}" + (", ... (--help-all shows all)" if len(names) > SHOWN else "")
    if kind is list:
        return f"a list, each {_describe(get_args(hint)[0])}"
    return _NAMES.get(kind, "an object, which no recipe can name")


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
    bracket = {"{": dict, "[": list}.get(value.lstrip()[:1]) if isinstance(value, str) else None
    if bracket in map(_kind, kinds):
        kinds = tuple(kind for kind in kinds if _kind(kind) is bracket)  # not a file's name
    for kind in kinds:
        try:
            return _READERS.get(_kind(kind), _unreadable)(value, kind)
        except ValueError:
            continue
    names = [name for kind in kinds if _kind(kind) in (Enum, Literal) for name in _choices(kind)]
    near = nearest(str(value), names)
    if isinstance(value, list) and written.where == ON_COMMAND_LINE:
        value = " ".join(value)
        fix = f"put a text of several words in quotes; or {fix}"
    raise RecipeError(str(Problem(key.name, repr(value), key.needs(), f"did you mean {near}?" if near else fix)))


def _null(value: Any, _: Any) -> None:
    if value not in (NULL, "~"):
        raise ValueError


def _bool(value: Any, _: Any) -> bool:
    if not isinstance(value, str) or value.lower() not in BOOLEANS:
        raise ValueError
    return BOOLEANS[value.lower()]


def _choice(value: Any, hint: Any) -> Any:
    if value not in _choices(hint):
        raise ValueError
    return value if _is_enum(hint) else get_args(hint)[_choices(hint).index(value)]


def _int(value: Any, _: Any) -> int:
    number = _float(value, float)
    if number != number // 1:  # not 2.5, but 1e4
        raise ValueError
    return int(number)


def _float(value: Any, _: Any) -> float:
    """A number; a whole one stays whole, as it is shown in records."""
    if not isinstance(value, str):
        raise ValueError
    try:
        return int(value)
    except ValueError:
        return float(value)


def _str(value: Any, _: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _dict(value: Any, _: Any) -> dict[str, Any]:
    if isinstance(value, str) and value.lstrip().startswith("{"):  # on the command line, as JSON
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError from error
    if not isinstance(value, dict):
        raise ValueError
    return value


def _list(value: Any, hint: Any) -> list[Any]:
    if isinstance(value, str) and value.lstrip().startswith("["):  # on the command line
        try:
            value = yaml.load(value, Loader=yaml.BaseLoader)
        except yaml.YAMLError as error:
            raise ValueError from error
    if isinstance(value, dict):
        raise ValueError
    (item,) = get_args(hint)
    read = _READERS.get(_kind(item), _unreadable)
    return [read(part, item) for part in (value if isinstance(value, list) else [value])]


def _unreadable(value: Any, _: Any) -> Any:
    raise ValueError


_READERS = {
    type(None): _null,
    bool: _bool,
    Literal: _choice,
    Enum: _choice,
    int: _int,
    float: _float,
    dict: _dict,
    str: _str,
    list: _list,
}


def unknown_key(name: str, known: Mapping[str, Key], where: str) -> str:
    """What to say of a key that there is not: what became of it, or the nearest one."""
    if name in FORMER_KEYS:
        return f"{name} ({where}) is no key: {FORMER_KEYS[name]}"
    near = nearest(name, known)
    advice = f"did you mean {near}?" if near else "--help shows those of Mini-R1, --help-all every key"
    return f"{name} ({where}) is no key: {advice}"
