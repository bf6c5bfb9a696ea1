"""The prompts that a recipe asks for."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trl import GRPOConfig

from mini_r1.prompts.settings import PromptSettings
from mini_r1.recipe.arguments import ScriptArguments


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
        training.chat_template_kwargs,
        style=script.prompt_style,
        chat_template=script.chat_template,
        system_prompt=script.system_prompt,
    )
    return replace(settings, date=began["date"]) if began and "date" in began else settings
