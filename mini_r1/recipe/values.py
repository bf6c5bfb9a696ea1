"""Checks every value of a recipe: against its range, against the other keys, and against what the engine knows.

A value that no run can use is refused before anything is loaded, together with all the others.
"""

import copy
from collections.abc import Iterable
from typing import Any

from trl import GRPOConfig, ModelConfig

from mini_r1.program.problems import Problem, nearest, shown
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.recipe.contradictions import find_contradictions
from mini_r1.recipe.keys import Key, keys_of
from mini_r1.recipe.method import idle_keys
from mini_r1.recipe.ranges import FLAG, MAPPING, NOT_NEGATIVE, RANGES, Range, above, as_list, at_least, below
from mini_r1.tasks.registry import TaskError, rewards_of, task_of

_KEYS = keys_of(ScriptArguments, GRPOConfig, ModelConfig)


def check_values(script: ScriptArguments, training: GRPOConfig, model: ModelConfig) -> list[Problem]:
    """Every value that is out of its range or contradicts another one.

    Args:
        training: read with `read_recipe`, so that its values are those of the recipe.
    """
    held = {**vars(script), **vars(training), **vars(model)}
    checked = RANGES.keys() - idle_keys(script.method)
    values = {key: held[name] for name, key in _KEYS.items() if name in checked and held[name] is not None}
    problems = [_problem(key, value) for key, value in values.items() if not RANGES[key.name].holds(value)]
    return problems + find_contradictions(script, training, model) + check_generation_kwargs(training)


def check_rewards(script: ScriptArguments, training: GRPOConfig) -> list[Problem]:
    """The task and each reward are there, and each reward has a weight."""
    try:
        names = list(rewards_of(task_of(script.task, script.task_config), script.reward_funcs))
    except TaskError as error:
        return [error.problem]
    weights = training.reward_weights
    if weights is None or len(weights) == len(names):
        return []
    allowed = f"{len(names)} number{'s' if len(names) > 1 else ''}, for {' and '.join(names)} in this order"
    return [Problem("reward_weights", shown(weights), allowed, f"set reward_weights: {[1.0] * len(names)}")]


def with_defaults(problems: Iterable[Problem], *parts: Any) -> tuple[Any, ...]:
    """Copies of the parts of a recipe in which the keys with a problem have their defaults, but for those of the task.

    With another task in its place, the other keys would be wrong for it.
    """
    copies = tuple(map(copy.copy, parts))
    for name in ({problem.name for problem in problems} & set(_KEYS)) - {"task", "task_config", "reward_funcs"}:
        for part in copies:
            if hasattr(part, name):
                setattr(part, name, _KEYS[name].default)
    return copies


def _problem(key: Key, value: Any) -> Problem:
    default = "leave it out" if key.default is None else f"set {key.name}: {shown(key.default)}, the default"
    wrong = next((part for part in as_list(value) if part not in RANGES[key.name].names), "")
    near = nearest(str(wrong), RANGES[key.name].names)
    return Problem(key.name, shown(value) or '""', RANGES[key.name].allowed, f"set {near}" if near else default)


# --- generation_kwargs ---------------------------------------------------------------------------------------------
# TRL hands the mapping to the engine last, so that it overrules every key of the recipe, and no other check sees it. It
# may choose tokens, but not decide how a completion ends: one that ends elsewhere than at its end token counts as cut
# off, and one that may not hold a tag or an end token never scores. Both train on nothing, without an error.

# What may be set for each engine: vLLM's SamplingParams and transformers' GenerationConfig.
ALLOWED: dict[str, dict[str, Range]] = {
    "vLLM": {
        "presence_penalty": at_least(-2, 2),
        "frequency_penalty": at_least(-2, 2),
        "structured_outputs": MAPPING,
        "skip_reading_prefix_cache": FLAG,
        "extra_args": MAPPING,
    },
    "transformers": {
        "typical_p": above(0, 1),
        "epsilon_cutoff": below(1),
        "eta_cutoff": below(1),
        "top_h": above(0, 1),
        "no_repeat_ngram_size": NOT_NEGATIVE,
        "renormalize_logits": FLAG,
        "remove_invalid_values": FLAG,
    },
}
# What has a key of its own, which would be overruled.
INSTEAD = {
    **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")},
    **{name: name for name in ("use_cache", "cache_implementation")},
    **dict.fromkeys(("max_tokens", "max_new_tokens", "max_length"), "max_completion_length"),
    **dict.fromkeys(("n", "num_return_sequences"), "num_generations"),
    **dict.fromkeys(("eos_token_id", "pad_token_id", "bos_token_id"), "tokenizer_name_or_path"),
}
_ENDS = "it changes when a completion ends, and one that does not end at its end token counts as cut off"
_HOLDS = "it changes which tokens a completion may hold, and an answer needs its tags and its end token"
_READS = "it changes what the trainer reads of a completion, and the rewards are computed on that"
WHY = {
    **dict.fromkeys(("stop", "stop_strings", "stop_token_ids", "ignore_eos", "include_stop_str_in_output"), _ENDS),
    **dict.fromkeys(("min_tokens", "min_length", "min_new_tokens", "max_time", "forced_eos_token_id"), _ENDS),
    **dict.fromkeys(("exponential_decay_length_penalty", "early_stopping", "repetition_detection"), _ENDS),
    **dict.fromkeys(("thinking_token_budget", "forced_bos_token_id"), _HOLDS),
    **dict.fromkeys(("bad_words", "bad_words_ids", "allowed_token_ids", "suppress_tokens", "logit_bias"), _HOLDS),
    **dict.fromkeys(("begin_suppress_tokens", "force_words_ids", "sequence_bias", "constraints"), _HOLDS),
    **dict.fromkeys(("skip_special_tokens", "spaces_between_special_tokens", "detokenize"), _READS),
    **dict.fromkeys(("do_sample", "num_beams"), "GRPO compares completions that are sampled, each by itself"),
}
_OTHER = "it is nothing that chooses tokens, or the engine does not know it"


def check_generation_kwargs(training: GRPOConfig) -> list[Problem]:
    """Everything in `generation_kwargs` that the engine of the recipe does not know, or that breaks the training."""
    given: Any = training.generation_kwargs
    if not isinstance(given, dict):
        return []
    engine = "vLLM" if training.use_vllm else "transformers"
    problems = [problem for item in given.items() if (problem := _check_kwarg(engine, *item))]
    if "structured_outputs" in given and training.vllm_structured_outputs_regex:
        cause = "vllm_structured_outputs_regex is set, too"
        fix = "leave structured_outputs out"
        problems.append(_bad_kwarg("structured_outputs", given["structured_outputs"], "one of the two", fix, cause))
    return problems


def _check_kwarg(engine: str, name: str, value: Any) -> Problem | None:
    ranges = ALLOWED[engine]
    if name in ranges:
        allowed = ranges[name].allowed
        return None if ranges[name].holds(value) else _bad_kwarg(name, value, allowed, f"correct {name}")
    allowed = f"with {engine} one or more of {', '.join(ranges)}"
    if name in INSTEAD:
        fix = f"leave it out, and set {INSTEAD[name]} of the recipe instead"
        return _bad_kwarg(name, value, allowed, fix, f"it would overrule {INSTEAD[name]}")
    elsewhere = [other for other, known in ALLOWED.items() if name in known]
    cause = f"it belongs to {elsewhere[0]}, and this recipe generates with {engine}" if elsewhere else ""
    near = "" if name in WHY or elsewhere else nearest(name, (*ranges, *INSTEAD))
    fix = f"did you mean {near}?" if near else f"leave {name} out"
    return _bad_kwarg(name, value, allowed, fix, cause or WHY.get(name, _OTHER))


def _bad_kwarg(name: str, value: Any, allowed: str, fix: str, cause: str = "") -> Problem:
    return Problem("generation_kwargs", f"{{{name}: {shown(value)}}}", allowed, fix, cause)
