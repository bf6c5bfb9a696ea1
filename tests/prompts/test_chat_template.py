"""Any chat template: between the assistant's header and our prefill stands nothing, or the text there is shown."""

import time
from datetime import datetime
from typing import Any

import pytest

from helpers.chat_tokenizers import (
    CHATML,
    EOS,
    LLAMA,
    MISTRAL,
    MISTRAL_V3,
    PUBLISHED,
    ZEPHYR,
    chat_tokenizer,
    llama_tokenizer,
    qwen_tokenizer,
)
from mini_r1.prompts.chat_template import ChatFormat, PromptError, PromptSettings

SYSTEM, USER, PREFILL = "Be kind.", "What is <think>1 + 1</think>?", "Let me see.\n<think>"
CHATML_TURN = ("<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>")
LLAMA_TURN = ("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>")
GEMMA_TURN = ("<end_of_turn>\n<start_of_turn>model\n", "<end_of_turn>")
DEEPSEEK_TURN = ("<｜Assistant｜>", "<｜end▁of▁sentence｜>")
# Template -> what stands between the user's text and our prefill, and how the assistant's turn ends.
TURNS = {
    "qwen2_5": CHATML_TURN,
    "qwen3": CHATML_TURN,  # in a conversation, an empty thinking block before the last answer
    "qwen3_instruct_2507": CHATML_TURN,
    "qwen3_5_nothink": CHATML_TURN,  # generates after an empty thinking block
    "qwen3_5_think": CHATML_TURN,  # generates after <think>
    "qwen3_6": CHATML_TURN,
    "qwen3_8": CHATML_TURN,
    "nemotron_3_nano": CHATML_TURN,
    "deepseek_r1_distill": DEEPSEEK_TURN,  # generates after <think>
    "deepseekv3": DEEPSEEK_TURN,
    "glm4moe": ("<|assistant|>", "<|user|>"),  # a turn ends with the user's next
    "llama3": LLAMA_TURN,
    "llama3_1": LLAMA_TURN,
    "llama3_2": LLAMA_TURN,
    "gemma": GEMMA_TURN,  # refuses a system message
    "gemma3": GEMMA_TURN,
    "phi3": ("<|end|>\n<|assistant|>\n", "<|end|>"),
    "cohere2": (
        "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>",
        "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
    ),
}
OWN = {
    "chatml": (CHATML, CHATML_TURN),
    "chatml without a word on the system": (
        CHATML.replace(
            "{{- '<|im_start|>' + message", "{%- if message.role != 'system' %}{{- '<|im_start|>' + message"
        ).replace("'\\n' }}{%- endfor", "'\\n' }}{%- endif %}{%- endfor"),
        CHATML_TURN,
    ),
    "llama": (LLAMA, LLAMA_TURN),
    "mistral": (MISTRAL, (" [/INST]", EOS)),
    "mistral v0.3": (MISTRAL_V3, ("[/INST] ", EOS)),
    "zephyr": (ZEPHYR, (f"{EOS}\n<|assistant|>\n", EOS)),
    "takes thinking out of answers": (
        CHATML.replace(
            "message.content +",
            "(message.content.split('</think>')[-1] if message.role == 'assistant' else message.content) +",
        ),
        CHATML_TURN,
    ),
    "refuses to answer last": (
        CHATML.replace(
            "{%- for", "{%- if messages[-1].role != 'user' %}{{- raise_exception('ask') }}{%- endif %}{%- for", 1
        ),
        CHATML_TURN,
    ),
    "marks what is generated": (
        CHATML.replace("message.content +", "").replace(
            "'<|im_end|>' + '\\n' }}{%- endfor",
            "'' }}{% generation %}{{ message.content + '<|im_end|>\\n' }}{% endgeneration %}{%- endfor",
        ),
        CHATML_TURN,
    ),
}


def begun(template: Any, **variables: Any) -> tuple[str, ChatFormat]:
    """The prompt that a template makes of the three texts."""
    form = ChatFormat(chat_tokenizer(template), SYSTEM, USER, PromptSettings(variables))
    return form.begin(SYSTEM, USER, PREFILL), form


def check_turn(template: Any, turn: tuple[str, str], **variables: Any) -> None:
    prompt, form = begun(template, **variables)
    before, _, after = prompt.rpartition(USER)
    assert after == turn[0] + PREFILL
    assert SYSTEM in before
    assert prompt.count("<think>") == 2  # the user's and ours
    assert form.end.startswith(turn[1])


@pytest.mark.parametrize("variables", [{}, {"enable_thinking": False}, {"enable_thinking": True}])
@pytest.mark.parametrize("name", TURNS)
def test_published_templates(name: str, variables: dict[str, bool]) -> None:
    """Whether the model is asked to think or not: our prefill lets it."""
    template = PUBLISHED[name].read_text(encoding="utf-8")
    header, end = TURNS[name]
    if name == "glm4moe" and variables.get("enable_thinking") is False:
        header = f"/nothink{header}\n"  # the user's turn says so, and a line ends before the block left out
    check_turn(template, (header, end), **variables)


@pytest.mark.parametrize("name", OWN)
def test_templates_of_other_families(name: str) -> None:
    check_turn(*OWN[name])


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_other_published_template_is_either_clean_or_refused(name: str) -> None:
    try:
        prompt, form = begun(PUBLISHED[name].read_text(encoding="utf-8"))
    except PromptError as error:
        assert "chat template" in str(error)
        assert len(str(error)) < 800
        return
    assert prompt.endswith(form.header + PREFILL)
    assert "think" not in form.header


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        # For the model to go on another beginning than in a conversation: gpt-oss', and any thinking tag unknown here.
        (PUBLISHED["gptoss"].read_text(encoding="utf-8"), "<|channel|>final<|message|>"),
        (CHATML.replace("assistant\\n'", "assistant\\n[THINK]'"), "[THINK]"),
        (CHATML.replace("assistant\\n'", "assistant\\n<think>Okay, so'"), "<think>Okay, so"),
        (CHATML.replace("assistant\\n'", "assistant\\n</think>Sure! '"), "</think>Sure! "),
        (CHATML.replace("message.role + '\\n' +", "message.role + '\\n<answer>' +").replace(
            "assistant\\n'", "assistant\\n<answer>'"), "<answer>"),
        # Texts that get lost or are changed.
        (CHATML.replace("message.content", "('' if message.role == 'assistant' else message.content)"), "leaves out"),
        (CHATML.replace("message.content +", "message.content.replace('<think>', '') +"), "does not write"),
        (CHATML.replace("message.content +", "message.content | upper +"), "does not write"),
        ("{% for m in messages %}{{ m.content[0].text }}{% endfor %}", "does not write"),
        # Templates that don't work at all.
        (CHATML.replace("{%- for", "{{- raise_exception('Not today') }}{%- for"), "Not today"),
        ("{% for m in messages %}{{ m.content }", "does not take messages"),
        ("{{ messages[7].content }}", "does not"),
        ({"tool_use": CHATML}, "tool_use"),
        (None, "no chat template"),
        ("", "no chat template"),
    ],
)  # fmt: skip
def test_what_can_not_be_used_is_refused_with_the_text(template: Any, shown: str) -> None:
    with pytest.raises(PromptError, match="chat template") as caught:
        begun(template)
    assert shown in str(caught.value)


def test_the_default_of_several_named_templates_is_used() -> None:
    check_turn({"default": CHATML, "tool_use": LLAMA}, CHATML_TURN)


def test_a_system_text_that_is_taken_stays_the_systems() -> None:
    assert begun(CHATML)[0].startswith(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{USER}")
    assert begun(MISTRAL)[0] == f"<s>[INST] {SYSTEM}\n\n{USER} [/INST]{PREFILL}"


def test_a_prompt_that_the_template_treats_otherwise_is_refused() -> None:
    template = CHATML.replace(
        "{%- if add", "{%- if 'secret' in messages[-1].content %}{{- 'Sure! ' }}{%- endif %}{%- if add"
    )
    form = ChatFormat(qwen_tokenizer(template), SYSTEM, USER)
    with pytest.raises(PromptError, match="Sure! "):
        form.begin(SYSTEM, "a secret", PREFILL)


def test_variables_reach_the_template() -> None:
    template = "{{ persona | default('nobody') }}:" + CHATML
    assert begun(template, persona="Ada")[0].startswith("Ada:")
    assert begun(template)[0].startswith("nobody:")


@pytest.mark.parametrize("name", ["messages", "add_generation_prompt", "tokenize", "strftime_now"])
def test_variables_that_would_change_the_prompt_itself_are_refused(name: str) -> None:
    with pytest.raises(PromptError, match=f"chat_template_kwargs sets {name}"):
        PromptSettings({name: True})


# --- the date ------------------------------------------------------------------------------------------------------

CLOCK = "{{ strftime_now('%Y-%m-%d %H:%M:%S') }} "


def test_a_templates_date_is_the_runs_and_not_todays() -> None:
    form = ChatFormat(
        llama_tokenizer(PUBLISHED["llama3_2"].read_text(encoding="utf-8")),
        SYSTEM,
        USER,
        PromptSettings(date="2026-01-31"),
    )
    assert "Today Date: 31 Jan 2026" in form.begin(SYSTEM, USER, PREFILL)


def test_a_template_that_writes_the_time_gives_the_same_prompt_a_second_later() -> None:
    settings = PromptSettings()
    first = ChatFormat(qwen_tokenizer(CLOCK + CHATML), SYSTEM, USER, settings).begin(SYSTEM, USER, PREFILL)
    time.sleep(1.1)
    again = ChatFormat(qwen_tokenizer(CLOCK + CHATML), SYSTEM, USER, settings).begin(SYSTEM, USER, PREFILL)
    assert first == again
    assert first.startswith(settings.date)


def test_the_date_is_todays_by_default_and_the_record_keeps_it() -> None:
    settings = PromptSettings({"enable_thinking": False})
    assert settings.date == datetime.now().date().isoformat()
    old = settings.record() | {"date": "2025-12-24"}
    assert PromptSettings.read(old) == PromptSettings({"enable_thinking": False}, "2025-12-24")


@pytest.mark.parametrize("date", ["today", "2026-13-01", None, 20260101])
def test_a_record_with_no_date_in_it_is_refused(date: Any) -> None:
    with pytest.raises(PromptError, match="2026-01-31"):
        PromptSettings.read({"date": date})
