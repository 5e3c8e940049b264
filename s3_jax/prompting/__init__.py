"""Masks from clicks and boxes: `Prompter` for many prompts on an image, `prompt` for one."""
