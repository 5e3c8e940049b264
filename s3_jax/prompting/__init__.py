"""Masks from clicks and boxes: `Prompter` for many prompts on an image, `prompt` for one."""

from s3_jax.prompting.prompter import ImageFeatures, Prompter, prompt

__all__ = ["ImageFeatures", "Prompter", "prompt"]
