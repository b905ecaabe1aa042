"""Fine-tune ChatGLM3-6B for Chinese medical questions, and prove what changed."""

__version__ = "0.1.0"
