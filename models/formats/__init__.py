"""Storage formats: how many bytes a matrix takes as a checkpoint or an engine keeps it, scales and indices included."""

from fxmeter.models.formats.config import WeightFormats
from fxmeter.models.formats.kv import KvFormat, kv_format, kv_format_names
from fxmeter.models.formats.methods import formats_of_config
from fxmeter.models.formats.named import weight_formats
from fxmeter.models.formats.parameter import Parameter, Role
from fxmeter.models.formats.storage import StorageFormat
from fxmeter.models.formats.weights import weight_format, weight_format_names

__all__ = [
    "KvFormat",
    "Parameter",
    "Role",
    "StorageFormat",
    "WeightFormats",
    "formats_of_config",
    "kv_format",
    "kv_format_names",
    "weight_format",
    "weight_format_names",
    "weight_formats",
]
