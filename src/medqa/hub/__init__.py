"""Models and data sets from Hugging Face or ModelScope."""

from medqa.hub.catalogue import DATA, EXAMS, HUBS, KNOWN, MODELS, REFUSED, Hub
from medqa.hub.download import (
    RECORD,
    download_data,
    download_exam,
    download_file,
    download_model,
)

__all__ = [
    "DATA",
    "EXAMS",
    "HUBS",
    "KNOWN",
    "MODELS",
    "RECORD",
    "REFUSED",
    "Hub",
    "download_data",
    "download_exam",
    "download_file",
    "download_model",
]
