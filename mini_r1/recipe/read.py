"""A recipe: one YAML file with everything that a run is made of, checked before any time is spent.

Its keys are those of TRL's `GRPOConfig` and `ModelConfig` and of `ScriptArguments`; the command line overrides them, as
`--key value`, `--key=value`, `--flag` or `--no_flag`, with `-` or `_` inside a key.
"""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from enum import Enum
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase
from trl import GRPOConfig, ModelConfig

from mini_r1.machine.gpus import use_training_gpu
from mini_r1.policy import loading
from mini_r1.policy.attention import attention_implementation
from mini_r1.policy.checkpoints import newest_complete
from mini_r1.program.problems import first_line
from mini_r1.program.redact import remember, take_api_key
from mini_r1.prompts.settings import PromptSettings
from mini_r1.recipe.arguments import ScriptArguments as ScriptArguments
from mini_r1.recipe.help import show_help_if_asked
from mini_r1.recipe.keys import keys_of, negated, read_value, unknown_key
from mini_r1.recipe.method import LEARNING_RATE, NEUTRAL, build_config
from mini_r1.recipe.text import RecipeError as RecipeError
from mini_r1.recipe.text import read_written
from mini_r1.recipe.values import check_values

logger = logging.getLogger(__name__)

Recipe = tuple[ScriptArguments, GRPOConfig, ModelConfig]
KEYS = keys_of(ScriptArguments, GRPOConfig, ModelConfig)


class _Values(GRPOConfig):
    """The keys of GRPOConfig as written: nothing derived from them, no device or process group touched."""

    def __post_init__(self) -> None:
        """Leave out what TRL does here, which needs the GPUs that the recipe is for."""


def read_recipe(arguments: Sequence[str] | None = None) -> Recipe:
    """Read `--config FILE` and the overrides that follow it (default: the command line), on any machine.

    GRPOConfig's part has the values as written; those out of range are left to the preflight, which reports them all.

    Raises:
        RecipeError: for a missing or malformed file, an unknown key, a value of the wrong type, or a
            checkpoint to resume that is missing.
    """
    values = read_values(arguments)
    if not str(values.get("model_name_or_path") or "").strip():
        raise RecipeError("model_name_or_path is not set: name a Hub model or a local folder")
    values["model_name_or_path"] = _shipped(str(values["model_name_or_path"]))
    written = list(values)
    if values.get("method") == "sft":
        values = {"learning_rate": LEARNING_RATE, **values, **NEUTRAL}
    kinds: list[Any] = [ScriptArguments, _Values, ModelConfig]
    with _refusals_in_words():
        script, training, model = (
            kind(**{field.name: values[field.name] for field in fields(kind) if field.name in values}) for kind in kinds
        )
    remember(training.hub_token)
    take_api_key(script.vllm_server_args)  # whatever shows or keeps the recipe from here on does so without it
    held = {**vars(script), **vars(training), **vars(model)}
    held = {name: value.value if isinstance(value, Enum) else value for name, value in held.items()}
    script.given = {name: held[name] for name in written if not name.endswith("_token")}
    script.settings = {name: held[name] for name in KEYS}
    training.resume_from_checkpoint = _checkpoint_to_resume(training)
    return script, training, model


def build_recipe(script: ScriptArguments, training: GRPOConfig, model: ModelConfig) -> Recipe:
    """The recipe that was read, with TRL's configuration as it builds it: that needs the GPUs, and joins the others.

    Raises:
        RecipeError: if TRL or transformers refuse it.
    """
    if note := use_training_gpu(training, script.vllm_gpus):
        logger.warning(note)
    with _refusals_in_words():
        built = build_config(training, script.method)
    return script, built, model


def parse_recipe(arguments: Sequence[str] | None = None) -> Recipe:
    """Read a recipe, check every value, and build it: for a program that has no preflight.

    Raises:
        RecipeError: as `read_recipe` and `build_recipe`, and for values out of range.
    """
    recipe = read_recipe(arguments)
    if problems := check_values(*recipe):
        raise RecipeError("\n".join(map(str, problems)))
    return build_recipe(*recipe)


@contextmanager
def _refusals_in_words() -> Iterator[None]:
    """TRL's and transformers' own checks raise whatever they like."""
    try:
        yield
    except Exception as error:
        raise RecipeError(f"the recipe can't be used: {first_line(error)}") from error


def read_values(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """The values that the recipe and the command line (default: this process's) set, each of its key's type.

    Raises:
        RecipeError: for all unknown keys, else for all values of the wrong type.
    """
    words = sys.argv[1:] if arguments is None else [str(word) for word in arguments]
    show_help_if_asked(words)
    written = {name: value for item in read_written(words, KEYS).items() for name, value in [negated(*item, KEYS)]}
    unknown = [unknown_key(name, KEYS, value.where) for name, value in written.items() if name not in KEYS]
    if unknown:
        raise RecipeError("; also: ".join(unknown))
    values, refused = {}, []
    for name, value in written.items():
        try:
            values[name] = read_value(KEYS[name], value)
        except RecipeError as error:
            refused.append(str(error))
    if refused:
        raise RecipeError("; also: ".join(refused))
    return values


def _shipped(model: str) -> str:
    """The model, found in this repository's assets/ where a program is started in another folder."""
    beside = Path(__file__).resolve().parents[2] / model
    here = not model.startswith("assets/") or Path(model).exists() or not beside.is_dir()
    return model if here else str(beside)


def _checkpoint_to_resume(training: GRPOConfig) -> str | None:
    """The folder that `resume_from_checkpoint` names; None for the newest complete checkpoint in the output folder.

    As in transformers, `true` stands for the newest one and `false` for a start from the base model. Left out, it is
    the newest one if there is any.

    Raises:
        RecipeError: the folder does not exist; or there is no complete checkpoint for `true`, or one for `false`.
    """
    wish: Any = training.resume_from_checkpoint
    output = Path(training.output_dir or "trainer_output").expanduser()
    first = os.environ.get("RANK", "0") == "0"  # the others' machines may not see the folder; the first one chooses
    if wish is True and first and newest_complete(output) is None:
        fix = "leave the key out, which starts a new run where there is none"
        raise RecipeError(f"resume_from_checkpoint is true, but {output} has no complete checkpoint: {fix}")
    if wish is False and first and (found := sorted(output.glob("checkpoint-*"))):
        fix = "give another output_dir, or leave the key out to resume"
        raise RecipeError(f"resume_from_checkpoint is false, but {output} has {found[0].name}: {fix}")
    if not isinstance(wish, str) or not wish:
        return None
    if not Path(wish).expanduser().is_dir():
        raise RecipeError(
            f"resume_from_checkpoint={wish!r} is not a folder: give a checkpoint-N folder, or leave it out to resume "
            f"the last one in {training.output_dir!r}"
        )
    return str(Path(wish).expanduser())


def model_init_kwargs(model: ModelConfig) -> tuple[dict[str, Any], str | None]:
    """What GRPOTrainer must hand to `from_pretrained`: it takes only the model's name from us otherwise."""
    attention, note = attention_implementation(model.attn_implementation)
    kwargs = {"revision": model.model_revision, "attn_implementation": attention, "dtype": model.dtype}
    return kwargs, note


def load_tokenizer(script: ScriptArguments, training: GRPOConfig, model: ModelConfig) -> PreTrainedTokenizerBase:
    """The policy's tokenizer.

    Raises:
        ModelError: if there is none.
    """
    name = script.tokenizer_name_or_path or str(model.model_name_or_path)
    return loading.load_tokenizer(
        name, revision=model.model_revision, trust_remote_code=bool(training.trust_remote_code)
    )


def read_prompt_settings(
    script: ScriptArguments, training: GRPOConfig, began: Mapping[str, Any] | None = None
) -> PromptSettings:
    """The prompt's settings in a recipe.

    Args:
        began: what the record of the run says of its prompts, if it is resumed: its date stays.

    Raises:
        PromptError: as `PromptSettings.of`.
    """
    settings = PromptSettings.of(
        cast(dict[str, Any] | None, training.chat_template_kwargs),  # by its range
        style=script.prompt_style,
        chat_template=script.chat_template,
        system_prompt=script.system_prompt,
    )
    return replace(settings, date=began["date"]) if began and "date" in began else settings
