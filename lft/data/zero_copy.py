"""numpy over the memory of Arrow arrays and back; pyarrow's own ways import pandas, which takes half a second."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def to_numpy(array: pa.Array) -> npt.NDArray[Any]:
    """Numbers without nulls (values,), read-only, as Arrow holds them."""
    values: npt.NDArray[Any] = np.from_dlpack(array)
    values.flags.writeable = False
    return values


def to_arrow(values: npt.NDArray[Any], arrow_type: pa.DataType) -> pa.Array:
    """Numbers (values,) as an array of a type of numbers, without nulls; copied only where their type is another."""
    same = np.ascontiguousarray(values, arrow_type.to_pandas_dtype())
    return pa.Array.from_buffers(arrow_type, len(same), [None, pa.py_buffer(same)])


def lists_of(offsets: npt.NDArray[Any], values: npt.NDArray[Any]) -> pa.Array:
    """int32 lists of `values` (all values,), each from one of `offsets` (lists + 1,) to the next."""
    return pa.ListArray.from_arrays(to_arrow(offsets, pa.int32()), to_arrow(values, pa.int32()))
