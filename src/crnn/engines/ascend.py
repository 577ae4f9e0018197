"""Ascend devices, through pyACL: runs the ``.om`` files that ``crnn compile`` makes. Not yet run on hardware."""

from __future__ import annotations

import math
import threading
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.engines import check_batch, check_output, compiled, pyacl, toolkit
from crnn.errors import EngineError, ModelError, OptionError
from crnn.spec import DELIVERABLE

_GEARS_INPUT = "ascend_mbatch_shape_data"  # ACL_DYNAMIC_TENSOR_NAME: the input that ATC adds to a model with gears
_NOTE = "the engine ascend has not yet been run on hardware; please report what you see"


class AscendEngine:
    """A compiled model on the device that ``$ASCEND_DEVICE_ID`` names (default 0).

    The spec is the one that lies beside the file (:mod:`crnn.engines.compiled`). A file without one is taken to follow
    the deliverable's contract, and ``notes`` says so. A fixed batch size gets the batches in pieces of that size, the
    last filled up with zeros; of a model with gears the smallest that holds the piece is set. Calls from several
    threads wait for each other: a model has one set of buffers. ``threads`` has no meaning on the device.

    ``precision`` was decided when the model was compiled; asking for another one is refused.

    Raises EngineError if pyACL or the device cannot be used, naming the call that failed, and ModelError if the file is
    no compiled model of its spec's shapes. Whatever is raised, nothing stays allocated. :meth:`close` gives the device
    back; garbage collection and the end of the process do so too.
    """

    name = "ascend"
    threads = 1

    def __init__(self, path: Path, threads: int | None = None, precision: str | None = None) -> None:
        known = compiled.read(path)
        self.path = path
        self.spec = known.spec if known else DELIVERABLE
        compiled_in = known.precision if known else "force_fp16"  # ATC's default
        self.precision = compiled.PRECISIONS.get(compiled_in, compiled_in)
        if precision not in (None, self.precision):
            raise OptionError(f"{path} computes in {self.precision}, not in {precision}: crnn compile --precision")
        self.notes: tuple[str, ...] = (_NOTE,)
        if known is None:
            assumed = "read as 1 x 32 x 100 gray, 26 steps, blank and 0-9a-z, float16"
            self.notes += (f"{compiled.beside(path).name} does not lie beside {path.name}: {assumed}",)
        found = toolkit.find()
        self.version = f"CANN {found.version}" if found and found.version else "CANN"

        self._acl = pyacl.runtime()
        self._lock = threading.Lock()
        device = pyacl.chosen_device()
        with ExitStack() as resources:
            try:
                self._open(resources, device)
                self.device = f"{self._acl.soc_name() or 'Ascend'}, device {device}"
            except EngineError as error:
                chip = f"; it was compiled for {known.soc_version}" if known else ""
                raise EngineError(f"{path}: {error}{chip}") from None
            self._close = weakref.finalize(self, _release, resources.pop_all(), self._lock)
        self._acl.close_at_exit(self)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """See :meth:`crnn.engines.Engine.run`."""
        check_batch(batch, self.spec)
        largest = self._sizes[-1]
        pieces = [self._piece(batch[i : i + largest]) for i in range(0, len(batch), largest)]
        output = np.concatenate(pieces, axis=1)  # time-major: the words are on axis 1
        check_output(output, len(batch), self.spec, self.path)
        return output

    def close(self) -> None:
        """Free everything on the device; closing twice does no harm. Raises EngineError if a release fails."""
        self._close()

    def _open(self, resources: ExitStack, device: int) -> None:
        """Load the model and allocate its buffers; ``resources`` learns how to release them, last first."""
        acl = self._acl
        self._context = acl.attach(device)
        resources.callback(acl.detach, device)
        acl.do("rt.set_context", self._context)
        # Created before the model is loaded, because it has to be destroyed after the model is unloaded.
        self._description = acl.handle("mdl.create_desc")
        resources.callback(acl.do, "mdl.destroy_desc", self._description)
        self._model = acl.make("mdl.load_from_file", str(self.path))
        resources.callback(acl.do, "mdl.unload", self._model)
        acl.do("mdl.get_desc", self._description, self._model)
        self._inspect()

        description = self._description
        inputs = [acl.handle("mdl.get_input_size_by_index", description, i) for i in range(1 + bool(self._gears))]
        self._pixels_size = inputs[self._pixels]
        self._output_size = acl.handle("mdl.get_output_size_by_index", description, 0)
        self._check_sizes()
        self._inputs, addresses = self._dataset(resources, inputs)
        self._outputs, (self._output,) = self._dataset(resources, [self._output_size])
        self._input = addresses[self._pixels]
        self._result = acl.make("rt.malloc_host", self._output_size)
        resources.callback(acl.do, "rt.free_host", self._result)
        resources.callback(acl.do, "rt.set_context", self._context)  # whichever thread closes

    def _inspect(self) -> None:
        """Inputs and output of the model: which is the picture's, the gears, types. Raises ModelError."""
        acl, description = self._acl, self._description
        gears = acl.make("mdl.get_dynamic_batch", description)
        self._gears = sorted(gears["batch"][: gears["batchCount"]])
        counts = tuple(acl.ask(f"mdl.get_num_{what}", description) for what in ("inputs", "outputs"))
        if counts != (1 + bool(self._gears), 1):
            raise ModelError(f"{self.path}: has {counts[0]} inputs and {counts[1]} outputs: not a compiled CRNN")
        self._gears_index = -1
        if self._gears:
            self._gears_index = acl.make("mdl.get_input_index_by_name", description, _GEARS_INPUT)
        self._pixels = 1 if self._gears_index == 0 else 0
        wanted = self.spec.input_dtype
        found = pyacl.DTYPES.get(acl.ask("mdl.get_input_data_type", description, self._pixels))
        if found != wanted:
            hint = "; it was compiled with AIPP" if found == np.uint8 else ""
            raise ModelError(f"{self.path}: takes {found or 'another type'} where its spec says {wanted}{hint}")
        dtype = pyacl.DTYPES.get(acl.ask("mdl.get_output_data_type", description, 0))
        if dtype is None or dtype.kind != "f":
            raise ModelError(f"{self.path}: gives {dtype or 'another type'} where float32 or float16 is needed")
        self._output_dtype = dtype
        dims = acl.make("mdl.get_input_dims", description, self._pixels)["dims"]
        self._sizes = self._gears or [int(dims[0])]
        shapes = {self.spec.input_shape}
        if self.spec.aipp:  # some releases give the shape behind AIPP; the size in bytes decides in any case
            shapes.add((self.spec.channels, self.spec.height, self.spec.width))
        if tuple(dims[1:]) not in shapes or self._sizes[0] < 1:
            wanted_dims = ["N", *self.spec.input_shape]
            raise ModelError(f"{self.path}: takes pictures of the shape {list(dims)} instead of {wanted_dims}")

    def _check_sizes(self) -> None:
        largest, spec = self._sizes[-1], self.spec
        needed = (
            largest * math.prod(spec.input_shape) * spec.input_dtype.itemsize,
            largest * spec.steps * spec.charset.classes * self._output_dtype.itemsize,
        )
        found = (self._pixels_size, self._output_size)
        if found != needed:
            sizes = f"{found[0]:,} bytes in and {found[1]:,} out where its spec needs {needed[0]:,} and {needed[1]:,}"
            raise ModelError(f"{self.path}: {sizes} for {largest} words")

    def _dataset(self, resources: ExitStack, sizes: list[int]) -> tuple[Any, list[Any]]:
        """A data set with a buffer of each size on the device, and the buffers' addresses."""
        acl = self._acl
        addresses = []
        for size in sizes:
            addresses.append(acl.make("rt.malloc", size, pyacl.HUGE_FIRST))
            resources.callback(acl.do, "rt.free", addresses[-1])
        dataset = acl.handle("mdl.create_dataset")
        resources.callback(acl.do, "mdl.destroy_dataset", dataset)
        for address, size in zip(addresses, sizes, strict=True):
            buffer = acl.handle("create_data_buffer", address, size)
            resources.callback(acl.do, "destroy_data_buffer", buffer)
            acl.make("mdl.add_dataset_buffer", dataset, buffer)
        return dataset, addresses

    def _piece(self, words: NDArray[Any]) -> NDArray[np.float32]:
        """No more words than the largest size."""
        size = next(size for size in self._sizes if size >= len(words))
        padding = np.zeros((size - len(words), *words.shape[1:]), words.dtype)
        data = np.concatenate([words, padding]).tobytes()
        with self._lock:
            if not self._close.alive:
                raise EngineError(f"{self.path}: this engine has been closed")
            try:
                output = self._execute(data, size)
            except EngineError as error:
                raise EngineError(f"{self.path}: {error}") from None
        return output[:, : len(words)].astype(np.float32)

    def _execute(self, data: bytes, size: int) -> NDArray[Any]:
        """One call of the network for ``size`` words."""
        acl = self._acl
        acl.do("rt.set_context", self._context)
        source = acl.address_of(data)  # an address alone keeps nothing alive: data does, until this returns
        acl.do("rt.memcpy", self._input, self._pixels_size, source, len(data), pyacl.HOST_TO_DEVICE)
        if self._gears:  # before every call, or the largest gear is taken
            acl.do("mdl.set_dynamic_batch_size", self._model, self._inputs, self._gears_index, size)
        acl.do("mdl.execute", self._model, self._inputs, self._outputs)
        dims = list(acl.make("mdl.get_cur_output_dims", self._description, 0)["dims"])
        if dims != [self.spec.steps, size, self.spec.charset.classes]:
            raise ModelError(f"{self.path}: the network's answer has the shape {dims} for {size} words")
        count = math.prod(dims) * self._output_dtype.itemsize
        acl.do("rt.memcpy", self._result, self._output_size, self._output, count, pyacl.DEVICE_TO_HOST)
        return np.frombuffer(acl.bytes_at(self._result, count), self._output_dtype).reshape(dims)


def _release(resources: ExitStack, lock: threading.Lock) -> None:
    with lock:  # at the end of the process another thread may still be reading
        resources.close()
