"""Which `generation_kwargs` a recipe may set: those that choose tokens, none that decide how a completion ends.

TRL hands the mapping to the engine last, so that it overrules every key of the recipe, and no other check sees it. A
completion that ends elsewhere than at its end token counts as cut off, and one that may not hold a tag or an end token
never scores: both train on nothing, without an error.
"""

from typing import Any

from trl import GRPOConfig

from mini_r1.program.problems import Problem, nearest, shown
from mini_r1.recipe.ranges import Range, above, at_least, below

FLAG = Range("true or false", lambda value: isinstance(value, bool))
MAPPING = Range("a mapping", lambda value: isinstance(value, dict))
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
        "no_repeat_ngram_size": at_least(0),
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
    problems = [problem for item in given.items() if (problem := _check(engine, *item))]
    if "structured_outputs" in given and training.vllm_structured_outputs_regex:
        cause = "vllm_structured_outputs_regex is set, too"
        fix = "leave structured_outputs out"
        problems.append(_problem("structured_outputs", given["structured_outputs"], "one of the two", fix, cause))
    return problems


def _check(engine: str, name: str, value: Any) -> Problem | None:
    ranges = ALLOWED[engine]
    if name in ranges:
        return None if ranges[name].holds(value) else _problem(name, value, ranges[name].allowed, f"correct {name}")
    allowed = f"with {engine} one or more of {', '.join(ranges)}"
    if name in INSTEAD:
        fix = f"leave it out, and set {INSTEAD[name]} of the recipe instead"
        return _problem(name, value, allowed, fix, f"it would overrule {INSTEAD[name]}")
    elsewhere = [other for other, known in ALLOWED.items() if name in known]
    cause = f"it belongs to {elsewhere[0]}, and this recipe generates with {engine}" if elsewhere else ""
    near = "" if name in WHY or elsewhere else nearest(name, (*ranges, *INSTEAD))
    fix = f"did you mean {near}?" if near else f"leave {name} out"
    return _problem(name, value, allowed, fix, cause or WHY.get(name, _OTHER))


def _problem(name: str, value: Any, allowed: str, fix: str, cause: str = "") -> Problem:
    return Problem("generation_kwargs", f"{{{name}: {shown(value)}}}", allowed, fix, cause)
