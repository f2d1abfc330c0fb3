"""Messages to prompts by a model's chat template, which is code of a stranger. Knows nothing of tokens or requests.

`ChatTemplate` is what others use. It renders in a process of its own (`RendererProcess`), where `Sandbox` holds the template.
"""

from src.text.template.chat import ChatTemplate

__all__ = ["ChatTemplate"]
