"""``acl.mdl`` of the double: models, their descriptions, datasets, execution."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from tests.doubles import acl_codes as codes
from tests.doubles.acl_memory import POISON, Region
from tests.doubles.acl_state import (
    DataBuffer,
    Dataset,
    Desc,
    Job,
    Model,
    Refused,
    State,
    Stream,
    call,
    executing,
    regions_of,
    whole,
)
from tests.doubles.om import HIDDEN_INPUT, NotAnOm, Twin, unpack


class Mdl:
    """``acl.mdl``."""

    def __init__(self, state: State) -> None:
        self._state = state

    @call("mdl.load_from_file")
    def load_from_file(self, path: str, /) -> int:
        state = self._state
        if not isinstance(path, str):
            raise TypeError(f"load_from_file takes a str, not {type(path).__name__}")
        context = state.need_context()
        try:
            data = Path(path).read_bytes()
        except OSError:
            raise Refused(codes.MODEL_PATH) from None
        try:
            compiled, onnx = unpack(data)
        except NotAnOm:
            raise Refused(codes.DESERIALIZE_MODEL) from None
        if compiled.soc != state.soc:
            raise Refused(codes.SOC_VERSION)
        if compiled.dynamic:
            raise NotImplementedError("the double runs no models of free shape")
        context.shared |= bool(state.alive(Model, context))
        return state.give(Model(context, compiled, Twin(compiled, onnx)))

    @call("mdl.unload")
    def unload(self, handle: int, /) -> None:
        state = self._state
        model = state.get(handle, Model, codes.MODEL_ID)
        if state.need_context() is not model.context:
            state.misuse("the model was loaded in another context")
        if model.user is not None or any(job.model is model for stream in state.alive(Stream) for job in stream.jobs):
            state.misuse("the model is being executed")
        if model.context.shared:
            before = ["mdl.create_dataset" for each in state.alive(Dataset) if model in each.models]
        else:  # all that lives in the context is this model's
            later = ("mdl.load_from_file", "mdl.create_desc", "rt.create_stream")
            before = [name for name in state.of(model.context) if name not in later]
        for name in before:
            state.misuse(f"{name} is to be released before the model")
        model.loaded = False
        state.drop(handle)

    # -- descriptions

    @call("mdl.create_desc")
    def create_desc(self) -> int:
        return self._state.give(Desc(self._state.context))

    @call("mdl.get_desc")
    def get_desc(self, desc: int, model: int, /) -> None:
        self._state.get(desc, Desc).model = self._state.get(model, Model, codes.MODEL_ID)

    @call("mdl.destroy_desc")
    def destroy_desc(self, handle: int, /) -> None:
        desc = self._state.get(handle, Desc)
        if desc.model is not None and desc.model.loaded:
            self._state.misuse("mdl.unload comes before it")
        self._state.drop(handle)

    def _described(self, handle: int) -> Model:
        model = self._state.get(handle, Desc).model
        if model is None:
            raise Refused(codes.INVALID_PARAM, "the description is empty: mdl.get_desc comes first")
        return model

    def _input(self, desc: int, index: int) -> Model:
        model = self._described(desc)
        if not 0 <= whole(index) < _inputs(model):
            raise Refused(codes.INVALID_PARAM, f"input {index} of {_inputs(model)}")
        return model

    def _output(self, desc: int, index: int) -> Model:
        model = self._described(desc)
        if whole(index) != 0:
            raise Refused(codes.INVALID_PARAM, f"output {index} of 1")
        return model

    @call("mdl.get_num_inputs")
    def get_num_inputs(self, desc: int, /) -> int:
        return _inputs(self._described(desc))

    @call("mdl.get_num_outputs")
    def get_num_outputs(self, desc: int, /) -> int:
        self._described(desc)
        return 1

    @call("mdl.get_input_size_by_index")
    def get_input_size_by_index(self, desc: int, index: int, /) -> int:
        model = self._input(desc, index)
        return self._state.hidden_bytes if index else model.compiled.input_bytes(model.compiled.largest)

    @call("mdl.get_output_size_by_index")
    def get_output_size_by_index(self, desc: int, index: int, /) -> int:
        model = self._output(desc, index)
        return model.compiled.output_bytes(model.compiled.largest)

    @call("mdl.get_input_dims")
    def get_input_dims(self, desc: int, index: int, /) -> dict[str, Any]:
        compiled = self._input(desc, index).compiled
        if index:
            return _dims(HIDDEN_INPUT, [self._state.hidden_bytes // 4])
        return _dims(compiled.input_name, compiled.input_dims(-1 if compiled.gears else compiled.batch))

    @call("mdl.get_output_dims")
    def get_output_dims(self, desc: int, index: int, /) -> dict[str, Any]:
        compiled = self._output(desc, index).compiled
        return _dims(compiled.output_name, compiled.output_dims(compiled.largest))

    @call("mdl.get_cur_output_dims")
    def get_cur_output_dims(self, desc: int, index: int, /) -> dict[str, Any]:
        model = self._output(desc, index)
        return _dims(model.compiled.output_name, model.compiled.output_dims(model.shown or model.compiled.largest))

    @call("mdl.get_input_data_type")
    def get_input_data_type(self, desc: int, index: int, /) -> int:
        compiled = self._input(desc, index).compiled
        return codes.INT32 if index else codes.DTYPES[compiled.input_dtype]

    @call("mdl.get_output_data_type")
    def get_output_data_type(self, desc: int, index: int, /) -> int:
        return codes.DTYPES[self._output(desc, index).compiled.output_dtype]

    @call("mdl.get_input_format")
    def get_input_format(self, desc: int, index: int, /) -> int:
        compiled = self._input(desc, index).compiled
        return codes.FORMATS["ND" if index else "NHWC" if compiled.stage else "NCHW"]

    @call("mdl.get_output_format")
    def get_output_format(self, desc: int, index: int, /) -> int:
        self._output(desc, index)
        return codes.FORMATS["ND"]

    @call("mdl.get_input_index_by_name")
    def get_input_index_by_name(self, desc: int, name: str, /) -> int:
        model = self._described(desc)
        names = [model.compiled.input_name, HIDDEN_INPUT][: _inputs(model)]
        if name not in names:
            raise Refused(codes.INVALID_PARAM)  # how one learns that a model has no gears: no misuse
        return names.index(name)

    @call("mdl.get_dynamic_batch")
    def get_dynamic_batch(self, desc: int, /) -> dict[str, Any]:
        gears = list(self._described(desc).compiled.gears)
        return {"batchCount": len(gears), "batch": gears}

    # -- datasets

    @call("mdl.create_dataset")
    def create_dataset(self) -> int:
        return self._state.give(Dataset(self._state.context))

    @call("mdl.add_dataset_buffer")
    def add_dataset_buffer(self, handle: int, buffer: int, /) -> int:
        dataset, added = self._state.get(handle, Dataset), self._state.get(buffer, DataBuffer)
        if added.dataset is not None:
            self._state.misuse("the data buffer is in a dataset already")
        added.dataset = dataset
        dataset.buffers.append(added)
        return handle

    @call("mdl.get_dataset_num_buffers")
    def get_dataset_num_buffers(self, handle: int, /) -> int:
        return len(self._state.get(handle, Dataset).buffers)

    @call("mdl.get_dataset_buffer")
    def get_dataset_buffer(self, handle: int, index: int, /) -> int:
        state = self._state
        buffers = state.get(handle, Dataset).buffers
        if not 0 <= whole(index) < len(buffers):
            raise Refused(codes.INVALID_PARAM, f"data buffer {index} of {len(buffers)}")
        for each, thing in state.handles.items():
            if thing is buffers[index]:
                return each
        raise Refused(codes.INVALID_PARAM, f"data buffer {index} has been destroyed")

    @call("mdl.destroy_dataset")
    def destroy_dataset(self, handle: int, /) -> None:
        state = self._state
        dataset = state.get(handle, Dataset)
        if any(buffer in dataset.buffers for buffer in state.alive(DataBuffer)):
            state.misuse("destroy_data_buffer comes first, for each of its buffers")
        if any(dataset in (job.inputs, job.outputs) for stream in state.alive(Stream) for job in stream.jobs):
            state.misuse("an execution that uses it has not been waited for")
        state.drop(handle)

    # -- execution

    @call("mdl.set_dynamic_batch_size")
    def set_dynamic_batch_size(self, handle: int, inputs: int, index: int, size: int, /) -> None:
        state = self._state
        model, dataset = state.get(handle, Model, codes.MODEL_ID), state.get(inputs, Dataset)
        if not model.compiled.gears:
            raise Refused(codes.NOT_DYNAMIC, "the model has no gears")
        if whole(index) != 1:
            raise Refused(codes.DYNAMIC_INPUT_ADDRESS, f"input {index} is not {HIDDEN_INPUT}")
        if whole(size) not in model.compiled.gears:
            raise Refused(codes.DYNAMIC_BATCH_SIZE, f"{size} is none of the gears {model.compiled.gears}")
        region = _hidden(state, dataset)
        region.write(0, whole(size).to_bytes(state.hidden_bytes, "little"))
        region.writer = threading.get_ident()
        model.gear = model.shown = size
        _remember(dataset, model)

    @call("mdl.execute", locked=False)
    def execute(self, handle: int, inputs: int, outputs: int, /) -> None:
        state = self._state
        with state.lock:
            job = self._job(handle, inputs, outputs)
        with executing(state, job.model):
            run_job(state, job)

    @call("mdl.execute_async")
    def execute_async(self, handle: int, inputs: int, outputs: int, stream: int, /) -> None:
        state = self._state
        queue = state.get(stream, Stream, codes.RT_PARAM)
        job = self._job(handle, inputs, outputs)
        if queue.context is not job.model.context:
            state.misuse("the stream belongs to another context than the model")
        if any(each.model is job.model and each.thread != job.thread for s in state.alive(Stream) for each in s.jobs):
            state.misuse("one model id is executed by two threads at once, without a lock around memcpy and execute")
        for region in (*regions_of(state, job.inputs), *regions_of(state, job.outputs)):
            region.in_flight = True
        queue.jobs.append(job)

    def _job(self, handle: int, inputs: int, outputs: int) -> Job:
        """Check everything that can be checked before the network runs."""
        state = self._state
        model = state.get(handle, Model, codes.MODEL_ID)
        into, out = state.get(inputs, Dataset), state.get(outputs, Dataset)
        if state.need_context() is not model.context:
            state.misuse("the model was loaded in another context")
        _remember(into, model)
        _remember(out, model)
        if model.compiled.gears and len(into.buffers) == 1:
            raise Refused(codes.DYNAMIC_INPUT_ADDRESS, f"the dataset has no data buffer for {HIDDEN_INPUT}")
        if len(into.buffers) != _inputs(model):
            raise Refused(codes.MODEL_INPUT_MISMATCH, f"{len(into.buffers)} input buffers instead of {_inputs(model)}")
        if len(out.buffers) != 1:
            raise Refused(codes.MODEL_OUTPUT_MISMATCH, f"{len(out.buffers)} output buffers instead of 1")
        regions, results = regions_of(state, into), regions_of(state, out)
        needed = model.compiled.input_bytes(model.compiled.largest)
        if into.buffers[0].size != needed:
            raise Refused(codes.MODEL_INPUT_MISMATCH, f"an input of {into.buffers[0].size} bytes instead of {needed}")
        needed = model.compiled.output_bytes(model.compiled.largest)
        if out.buffers[0].size < needed:
            raise Refused(codes.MODEL_OUTPUT_MISMATCH, f"an output of {out.buffers[0].size} bytes instead of {needed}")
        if any(region in regions for region in results):
            state.misuse("the output lies in the input's memory")
        if regions[0].writer is None:
            state.misuse("the input was never written")
        elif regions[0].writer != threading.get_ident():
            state.misuse("the input was written by another thread: no lock around memcpy and execute")
        gear = self._gear(model, into)
        return Job(model, into, out, gear, threading.get_ident())

    def _gear(self, model: Model, inputs: Dataset) -> int | None:
        """The gear of this execution; the choice holds for one only."""
        if not model.compiled.gears:
            return None
        gear, model.gear = model.gear, None
        if gear is None:
            self._state.misuse("mdl.set_dynamic_batch_size is missing before this execution: the largest gear is used")
            model.shown = model.compiled.largest
            return model.compiled.largest
        hidden = _hidden(self._state, inputs)
        if int.from_bytes(hidden.read(0, self._state.hidden_bytes), "little") != gear:
            self._state.misuse(f"the memory of {HIDDEN_INPUT} does not hold what set_dynamic_batch_size wrote last")
        if hidden.writer != threading.get_ident():
            self._state.misuse("another thread set the gear: no lock around memcpy and execute")
        return gear


def run_job(state: State, job: Job) -> None:
    """Compute, and write the output to device memory; what lies behind it there is worthless afterwards."""
    compiled = job.model.compiled
    batch = job.gear or compiled.batch
    with state.lock:
        source, target = regions_of(state, job.inputs)[0], regions_of(state, job.outputs)[0]
        buffer, result = job.inputs.buffers[0], job.outputs.buffers[0]
        data = source.read(buffer.address - source.address, compiled.input_bytes(batch))
    output = job.model.twin.run(data, batch)
    with state.lock:
        target.write(result.address - target.address, output.ljust(result.size, bytes([POISON])))
        target.writer = threading.get_ident()
        for region in (*regions_of(state, job.inputs), target):
            region.in_flight = False


def _inputs(model: Model) -> int:
    return 2 if model.compiled.gears else 1


def _hidden(state: State, inputs: Dataset) -> Region:
    if len(inputs.buffers) != 2:
        raise Refused(codes.DYNAMIC_INPUT_ADDRESS, f"the dataset has no data buffer for {HIDDEN_INPUT}")
    if (size := inputs.buffers[1].size) != state.hidden_bytes:
        raise Refused(codes.DYNAMIC_INPUT_LENGTH, f"{size} bytes for {HIDDEN_INPUT} instead of {state.hidden_bytes}")
    return regions_of(state, inputs)[1]


def _remember(dataset: Dataset, model: Model) -> None:
    if model not in dataset.models:
        dataset.models.append(model)


def _dims(name: str, dims: list[int]) -> dict[str, Any]:
    return {"name": name, "dimCount": len(dims), "dims": dims}
