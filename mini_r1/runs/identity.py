"""What a run is: the record of everything that decides its result, kept in run.json and in each checkpoint.

A run that is resumed with another learning rate, seed or model would not become another run: the checkpoint's
optimizer, schedule and weights continue as they were, while card and record would name the new values. So the record is
compared before anything is loaded: a key that decides is refused, one that does not is said and takes effect.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mini_r1.policy.checkpoints import CHECKPOINT
from mini_r1.policy.weights import sample_digest
from mini_r1.program.redact import redact
from mini_r1.recipe.arguments import ScriptArguments
from mini_r1.runs.holdout import DataSettings, Sides
from mini_r1.runs.records import RUN, Record, read_object
from mini_r1.tasks.registry import rewards_of


def _keys(table: str) -> frozenset[str]:
    """The words of a table of keys; `#` begins a remark."""
    return frozenset(word for line in table.splitlines() for word in line.partition("#")[0].split())


# Every key of ScriptArguments, GRPOConfig and ModelConfig is in one of the three, which a test sees to.
DECIDING = _keys("""
    # method, task, prompts and rewards
    method
    task task_config reward_funcs dataset_id_or_path dataset_split dataset_revision max_samples split_seed test_size
    max_prompt_length tokenizer_name_or_path prompt_style chat_template chat_template_kwargs system_prompt
    reward_weights multi_objective_aggregation scale_rewards max_tool_calling_iterations remove_unused_columns
    label_names
    # the model and its adapter
    model_name_or_path model_revision model_init_kwargs dtype use_peft lora_r lora_alpha lora_dropout
    lora_target_modules lora_target_parameters lora_modules_to_save lora_task_type use_rslora use_dora load_in_8bit
    load_in_4bit bnb_4bit_quant_type use_bnb_nested_quant bnb_4bit_quant_storage cast_lm_head_to_fp32
    disable_dropout neftune_noise_alpha bf16 fp16 tf32
    # order and chance
    seed data_seed shuffle_dataset ignore_data_skip train_sampling_strategy length_column_name dataloader_drop_last
    dataloader_in_order accelerator_config
    # batches
    per_device_train_batch_size gradient_accumulation_steps auto_find_batch_size num_generations
    generation_batch_size steps_per_generation num_iterations
    # what is sampled
    resample_uniform_groups max_completion_length temperature top_p top_k min_p repetition_penalty generation_kwargs
    vllm_structured_outputs_regex use_vllm vllm_max_model_length
    # the loss
    beta epsilon epsilon_high delta loss_type importance_sampling_level sapo_temperature_neg sapo_temperature_pos
    vespo_k_pos vespo_lambda_pos vespo_k_neg vespo_lambda_neg mask_truncated_completions top_entropy_quantile
    entropy_coef use_adaptive_entropy entropy_coef_min entropy_coef_max entropy_coef_delta entropy_target
    vllm_importance_sampling_correction vllm_importance_sampling_mode vllm_importance_sampling_clip_max
    vllm_importance_sampling_clip_min vllm_importance_sampling_cap off_policy_mask_threshold use_bias_correction_kl
    sync_ref_model ref_model_mixup_alpha ref_model_sync_steps router_aux_loss_coef label_smoothing_factor
    average_tokens_across_devices
    # the optimizer, which the checkpoint brings along with its schedule
    learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps optim optim_args optim_target_modules
    weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm
""")
HARMLESS = _keys("""
    # how long
    max_steps num_train_epochs
    # what is looked at and kept on the way
    eval_puzzles samples_per_step eval_strategy eval_steps eval_delay eval_on_start per_device_eval_batch_size
    num_generations_eval eval_accumulation_steps eval_do_concat_batches eval_use_gather_object prediction_loss_only
    include_for_metrics batch_eval_metrics bf16_full_eval fp16_full_eval save_strategy save_steps save_total_limit
    save_only_model save_on_each_node enable_jit_checkpoint restore_callback_states_from_checkpoint
    load_best_model_at_end metric_for_best_model greater_is_better
    # what is told to whom
    logging_strategy logging_steps logging_first_step logging_nan_inf_filter log_on_each_node log_level
    log_level_replica disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id
    trackio_static_space_id include_num_input_tokens_seen log_completions log_multimodal num_completions_to_print
    log_unique_prompts log_completions_hub_repo push_to_hub hub_model_id hub_strategy hub_private_repo
    hub_always_push hub_revision
    # how the same numbers are computed
    length_buckets share_prompts skip_zero_advantage skip_old_logps attn_implementation
    gradient_checkpointing gradient_checkpointing_kwargs torch_compile torch_compile_backend torch_compile_mode
    use_liger_kernel liger_kernel_config use_cache torch_empty_cache_steps pad_to_multiple_of full_determinism use_cpu
    trust_remote_code cache_implementation
    ds3_gather_for_generation use_transformers_continuous_batching transformers_continuous_batching_config
    use_transformers_paged dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers
    dataloader_prefetch_factor dataloader_multiprocessing_context skip_memory_metrics debug
    # where: engine and number of processes are compared apart, in `mini_r1.policy.checkpoints`
    deepspeed fsdp fsdp_config parallelism_config ddp_backend ddp_timeout ddp_find_unused_parameters
    ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph vllm_gpus vllm_mode vllm_model_impl
    vllm_enable_sleep_mode vllm_server_base_url vllm_server_host vllm_server_port vllm_server_timeout
    vllm_group_port vllm_gpu_memory_utilization vllm_tensor_parallel_size vllm_request_timeout
""")
# Not of the run but of one start, or a secret.
UNRECORDED = _keys("""
    output_dir resume_from_checkpoint dry_run plan_accelerate_config plan_processes plan_processes_per_machine
    gpu_memory_gb seconds_per_step hub_token vllm_server_args local_rank do_train do_eval do_predict
""")
MANIFEST, PRACTICE = "complete.json", "practice.json"
PATHS = frozenset({"model_name_or_path", "tokenizer_name_or_path", "dataset_id_or_path", "chat_template"})


@dataclass(frozen=True)
class RunRecord:
    """Everything that decides a run's result, as it is written to run.json and to a checkpoint.

    Attributes:
        settings: every key of the recipe with its value, defaults included, as it was written.
        data: `DataSettings` with sizes and digests of both sides (`mini_r1.runs.holdout.Sides.record`).
        rewards: the names of the rewards, in order.
        prompt: what the prompts depend on besides the keys, such as a date that is fixed for the run.
        lineage: the records of the data that the base had been trained on before, as far as they are known.
        base: a digest of the base's weights, where they are in a folder (`mini_r1.policy.weights.sample_digest`).
    """

    settings: Record = field(default_factory=dict)
    data: Record = field(default_factory=dict)
    rewards: list[str] = field(default_factory=list)
    prompt: Record = field(default_factory=dict)
    lineage: list[Record] = field(default_factory=list)
    base: Record = field(default_factory=dict)

    def as_json(self) -> Record:
        """The record as JSON holds it, without secrets."""
        plain: Record = json.loads(redact(json.dumps(asdict(self), default=str)))
        return plain

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "RunRecord":
        """The record in a run.json or a manifest; a part that is missing or of another type is empty."""
        empty = asdict(cls())
        parts = {name: record.get(name) for name in empty}
        return cls(
            **{name: part if isinstance(part, type(empty[name])) else empty[name] for name, part in parts.items()}
        )


@dataclass(frozen=True, slots=True)
class Change:
    """A key whose value is another one than the run began with."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}"


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def record_run(script: ScriptArguments, sides: Sides | None = None, prompt: Record | None = None) -> RunRecord:
    """The record of the run that a recipe describes; without `sides`, which take time to load, it has no digests."""
    settings = {key: value for key, value in script.settings.items() if key not in UNRECORDED}
    data = sides.record() if sides else asdict(DataSettings.of(script))
    model = str(script.settings.get("model_name_or_path", ""))
    digest = sample_digest(Path(model).expanduser())
    base = {"weights": digest} if digest else {}
    rewards = list(rewards_of(sides.task if sides else DataSettings.of(script).make_task(), script.reward_funcs))
    record = RunRecord(settings, data, rewards, prompt or {}, lineage_of(model), base)
    return RunRecord.from_json(record.as_json())


def find_record(model: str | Path) -> RunRecord | None:
    """The record of the run that made the model in a folder (a run's, or one of its checkpoints); None if none did.

    A base that was pretrained on puzzles of this project (the shipped one) has no run, but says in practice.json which
    puzzles those were: they are its lineage.
    """
    folder = Path(model).expanduser()
    places = [(folder / RUN, None), (folder / MANIFEST, "run")]
    if CHECKPOINT.fullmatch(folder.resolve().name):
        places = [places[1], (folder.resolve().parent / RUN, None)]
    for path, part in places:
        content = read_object(path)
        content = content.get(part, {}) if part else content
        if isinstance(content, dict) and isinstance(content.get("data"), dict) and "dataset" in content["data"]:
            return RunRecord.from_json(content)
    practised = read_object(folder / PRACTICE)
    return RunRecord(lineage=[{"model": str(model)} | practised]) if "dataset" in practised else None


def lineage_of(model: str | Path) -> list[Record]:
    """The data that a model in a folder has been trained on, its own last; empty for one that nobody recorded."""
    record = find_record(model)
    if record is None:
        return []
    own = [record.data | {"model": str(model)}] if record.data else []
    return [*record.lineage, *own]


def changes(old: RunRecord, new: RunRecord) -> tuple[list[Change], list[Change]]:
    """Compare what a run began with and what it is to resume with.

    A key that only one of the two records has (another version of a package wrote it) is not compared.

    Returns:
        the changes that would decide the result, and those that only take effect from here on.
    """
    found = [
        Change(key, old.settings[key], new.settings[key])
        for key in old.settings
        if key in new.settings and not _same(key, old.settings[key], new.settings[key])
    ]
    if old.rewards and new.rewards and old.rewards != new.rewards:
        found.append(Change("reward_funcs", old.rewards, new.rewards))
    needs_base = old.settings.get("use_peft") or old.settings.get("beta")  # else the checkpoint has all weights
    if needs_base and old.base and new.base and old.base != new.base:
        found.append(Change(f"the weights in {new.settings.get('model_name_or_path')}", old.base, new.base))
    harmless = [change for change in found if change.key in HARMLESS]
    return [change for change in found if change.key not in HARMLESS], harmless


def _same(key: str, old: Any, new: Any) -> bool:
    """Whether two values are the same; for a path that is there, in whatever way it is written."""
    if old == new or key not in PATHS or not isinstance(old, str) or not isinstance(new, str):
        return bool(old == new)
    one, other = Path(old).expanduser(), Path(new).expanduser()
    return one.exists() and other.exists() and one.resolve() == other.resolve()
