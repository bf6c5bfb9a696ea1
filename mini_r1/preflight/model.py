"""The preflight's check of the base model: present, complete, of the right kind, and long enough for a completion."""

from pathlib import Path

from transformers import PretrainedConfig

from mini_r1.policy.attention import attention_implementation
from mini_r1.policy.loading import ModelError, resolve_model
from mini_r1.policy.shape import ModelShape, keeps_every_token, load_config, measure_shape
from mini_r1.policy.weights import missing_weights
from mini_r1.preflight.plan import Findings, Plan
from mini_r1.program.problems import Problem, first_line

NAME = "model_name_or_path"
WANTED = "a complete causal language model"


def check_model(plan: Plan, findings: Findings) -> tuple[PretrainedConfig | None, ModelShape | None]:
    """The configuration and sizes of the model, if they can be known, and whether its length suffices."""
    name = str(plan.model.model_name_or_path)
    if problem := _check_folder(name):
        findings.problems.append(problem)
        return None, None
    try:
        config, missing = load_config(plan.model, plan.training.trust_remote_code)
        shape = measure_shape(config, plan.model)
    except Exception as error:  # a library's, of a configuration that can hold anything: the run would end with it
        findings.problems.append(_no_model(name, error))
        return None, None
    if missing:
        findings.problems.append(_no_model(name, OSError(missing)))
        findings.notes.append(f"the sizes below are those that {name} was published with")
    _check_length(plan, config, shape, findings)
    _check_attention(plan, findings)
    if plan.script.share_prompts and plan.script.method == "grpo" and not keeps_every_token(config):
        allowed = "a model whose layers keep keys and values of all tokens"
        cause = f"layers of a {config.model_type} model have a sliding window or a state"
        findings.problems.append(Problem("share_prompts", "true", allowed, "set share_prompts: false", cause))
    return config, shape


def _check_folder(name: str) -> Problem | None:
    """What is wrong with the model's folder, or with a name that is neither a folder's nor a Hub model's."""
    try:
        folder = Path(resolve_model(name))
    except ModelError as error:
        return Problem(NAME, name, WANTED, "name the folder or the Hub model (USER/MODEL) to start from", str(error))
    if not folder.is_dir():
        return None
    if not (folder / "config.json").is_file():
        fix = "merge the adapter into its base (PeftModel.merge_and_unload) and name the folder of the result"
        return Problem(NAME, name, WANTED, fix, "it holds only an adapter, without the model that it adapts")
    if gap := missing_weights(folder):
        return Problem(
            NAME, name, WANTED, "copy or download the model again", f"its weights are not complete (missing: {gap})"
        )
    return None


def _no_model(name: str, error: Exception) -> Problem:
    """A model that can't be had, and what to do: other things for a folder than for a model of the Hub."""
    text = str(error)
    if "trust_remote_code" in text:
        fix = "set trust_remote_code: true if you have read that code and trust it, or take another model"
        return Problem(NAME, name, WANTED, fix, "it runs code of its own, which trust_remote_code: false forbids")
    if "nrecognized configuration class" in text:
        fix = "name a model that continues text (AutoModelForCausalLM)"
        return Problem(NAME, name, WANTED, fix, "it is another kind of model")
    if Path(name).expanduser().is_dir():
        return Problem(NAME, name, WANTED, "repair its config.json, or download the model again", first_line(error))
    fix = (
        "check the name, log in for a gated model (`hf auth login`), or on a machine without network give the folder "
        f"of a downloaded copy (`hf download {name}`)"
    )
    return Problem(NAME, name, WANTED, fix, first_line(error))


def _check_length(plan: Plan, config: PretrainedConfig, shape: ModelShape, findings: Findings) -> None:
    """Prompt and completion fit into what the model, and vLLM, can hold."""
    needed = plan.script.max_prompt_length + int(plan.training.max_completion_length or 0)
    limits = {"max_position_embeddings of the model": shape.positions}
    if plan.training.use_vllm and plan.training.vllm_max_model_length:
        limits["vllm_max_model_length"] = plan.training.vllm_max_model_length
    for name, limit in limits.items():
        if limit and needed > limit:
            prompt, most = plan.script.max_prompt_length, max(1, limit - plan.script.max_prompt_length)
            cause = f"{name} is {limit}, of which max_prompt_length takes {prompt}"
            key, fix = "max_completion_length", f"set max_completion_length: {most}"
            value = plan.training.max_completion_length
            findings.problems.append(Problem(key, value, f"at most {most}", fix, cause))


def _check_attention(plan: Plan, findings: Findings) -> None:
    _, fallback = attention_implementation(plan.model.attn_implementation)
    if fallback and plan.elsewhere:
        fallback = "flash-attn is not installed here; where it is missing the run uses PyTorch's sdpa attention instead"
    if fallback:
        findings.notes.append(fallback)
