"""Numbers of AscendCL: error codes, data types, constants; and what each call gives when it fails."""

from __future__ import annotations

from typing import Any

import numpy as np

INVALID_PARAM = 100000
UNINITIALISED = 100001
REPEAT_INIT = 100002
INVALID_FILE = 100003
DESERIALIZE_MODEL = 100012
MODEL_INPUT_MISMATCH = 100017
MODEL_OUTPUT_MISMATCH = 100018
NOT_DYNAMIC = 100019
REPEAT_FINALIZE = 100037
RT_PARAM = 107000
INVALID_DEVICE = 107001
CONTEXT_NULL = 107002
MODEL_PATH = 145002
MODEL_ID = 145003
DYNAMIC_INPUT_ADDRESS = 145011
DYNAMIC_INPUT_LENGTH = 145012
DYNAMIC_BATCH_SIZE = 145013
MEMORY_ALLOCATION = 207001
NO_DEVICE = 207004
RESOURCE_ALLOCATION = 207005
FAILURE = 500001
GE_FAILURE = 500002
RT_FAILURE = 500003
SOC_VERSION = 507008
MODEL_EXECUTE = 507011
LOAD_MODEL = 545009

DTYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.int32): 3, np.dtype(np.uint8): 4}
FORMATS = {"NCHW": 0, "NHWC": 1, "ND": 2}
INT32 = 3
HOST_TO_HOST, HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = range(4)

FAILURES: dict[str, tuple[Any, int | None]] = {
    "init": (None, FAILURE),
    "finalize": (None, FAILURE),
    "get_recent_err_msg": ("", None),
    "get_soc_name": ("", None),
    "create_data_buffer": (None, None),
    "destroy_data_buffer": (None, INVALID_PARAM),
    "get_data_buffer_addr": (0, None),
    "get_data_buffer_size": (0, None),
    "rt.set_device": (None, INVALID_DEVICE),
    "rt.reset_device": (None, RT_FAILURE),
    "rt.get_device_count": (0, NO_DEVICE),
    "rt.create_context": (0, RESOURCE_ALLOCATION),
    "rt.destroy_context": (None, RT_FAILURE),
    "rt.set_context": (None, CONTEXT_NULL),
    "rt.get_context": (0, CONTEXT_NULL),
    "rt.create_stream": (0, RESOURCE_ALLOCATION),
    "rt.destroy_stream": (None, RT_FAILURE),
    "rt.synchronize_stream": (None, MODEL_EXECUTE),
    "rt.get_run_mode": (0, RT_FAILURE),
    "rt.malloc": (0, MEMORY_ALLOCATION),
    "rt.free": (None, RT_FAILURE),
    "rt.malloc_host": (0, MEMORY_ALLOCATION),
    "rt.free_host": (None, RT_FAILURE),
    "rt.memcpy": (None, RT_FAILURE),
    "mdl.load_from_file": (0, LOAD_MODEL),
    "mdl.unload": (None, GE_FAILURE),
    "mdl.create_desc": (None, None),
    "mdl.get_desc": (None, MODEL_ID),
    "mdl.destroy_desc": (None, INVALID_PARAM),
    "mdl.get_num_inputs": (0, None),
    "mdl.get_num_outputs": (0, None),
    "mdl.get_input_size_by_index": (0, None),
    "mdl.get_output_size_by_index": (0, None),
    "mdl.get_input_dims": ({}, GE_FAILURE),
    "mdl.get_output_dims": ({}, GE_FAILURE),
    "mdl.get_cur_output_dims": ({}, GE_FAILURE),
    "mdl.get_input_data_type": (-1, None),
    "mdl.get_output_data_type": (-1, None),
    "mdl.get_input_format": (-1, None),
    "mdl.get_output_format": (-1, None),
    "mdl.get_input_index_by_name": (0, INVALID_PARAM),
    "mdl.get_dynamic_batch": ({}, GE_FAILURE),
    "mdl.set_dynamic_batch_size": (None, DYNAMIC_BATCH_SIZE),
    "mdl.create_dataset": (None, None),
    "mdl.add_dataset_buffer": (None, INVALID_PARAM),
    "mdl.get_dataset_num_buffers": (0, None),
    "mdl.get_dataset_buffer": (None, None),
    "mdl.destroy_dataset": (None, INVALID_PARAM),
    "mdl.execute": (None, MODEL_EXECUTE),
    "mdl.execute_async": (None, MODEL_EXECUTE),
    "util.bytes_to_ptr": (0, None),
    "util.numpy_to_ptr": (0, None),
    "util.numpy_contiguous_to_ptr": (0, None),
    "util.ptr_to_bytes": (b"", None),
    "util.ptr_to_numpy": (None, None),
}
"""Call -> (value it gives when it fails, its documented code). A call without a code gives the bare value; one whose
value is None and that has a code gives the code alone; every other one gives (value, code)."""

PAIRS = frozenset(name for name, (value, code) in FAILURES.items() if code is not None and value is not None) | {
    "mdl.add_dataset_buffer"
}
"""Calls that give (value, code)."""

RELEASES = frozenset(
    {
        "finalize",
        "destroy_data_buffer",
        "rt.reset_device",
        "rt.destroy_context",
        "rt.destroy_stream",
        "rt.free",
        "rt.free_host",
        "mdl.unload",
        "mdl.destroy_desc",
        "mdl.destroy_dataset",
    }
)
"""Calls that give something back. When one is made to fail, what it was to release counts as gone."""
