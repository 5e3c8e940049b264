"""Weights as people save them: in half precision, without counters, or broken."""

import numpy as np
import pytest

from s3_jax.conversion.weights import ConversionError, from_torch
from tests.support.tiny import CONFIGS, tensors

CONFIG = CONFIGS["resnet18"]


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_convert(dtype):
    saved = {k: v.astype(dtype) if v.dtype == np.float32 else v for k, v in tensors(CONFIG).items()}
    found, expected = from_torch(saved, CONFIG), from_torch(tensors(CONFIG), CONFIG)
    assert found["params"].keys() == expected["params"].keys()


def test_files_without_step_counters_convert():
    saved = {k: v for k, v in tensors(CONFIG).items() if not k.endswith("num_batches_tracked")}
    assert len(saved) < len(tensors(CONFIG))
    found, expected = from_torch(saved, CONFIG), from_torch(tensors(CONFIG), CONFIG)
    assert found["batch_stats"].keys() == expected["batch_stats"].keys()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(value):
    key = next(iter(tensors(CONFIG)))
    broken = tensors(CONFIG)[key].copy()
    broken.flat[0] = value
    with pytest.raises(ConversionError, match=rf"not finite: {key}"):
        from_torch({**tensors(CONFIG), key: broken}, CONFIG)
