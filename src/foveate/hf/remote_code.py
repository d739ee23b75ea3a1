"""This model's walk is run by the foveate package; ``trust_remote_code=True`` finds it through this file."""

try:
    from foveate.hf.classification import FoveateForSequenceClassification, FoveateForTokenClassification
    from foveate.hf.configuration_foveate import FoveateConfig
    from foveate.hf.modeling_foveate import FoveateForCausalLM, FoveateModel
except ImportError as error:
    raise ImportError("this is a Foveate model: install the package that runs it with: pip install foveate") from error

__all__ = [
    "FoveateConfig",
    "FoveateForCausalLM",
    "FoveateForSequenceClassification",
    "FoveateForTokenClassification",
    "FoveateModel",
]
