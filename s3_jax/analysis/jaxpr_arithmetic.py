"""FLOPs of a traced program before compilation, with every round of its loops counted.

Compilers count the body of a loop only once, but most of a training step is a loop.
"""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def traced_flops(program: ClosedJaxpr | Jaxpr) -> float:
    """Return the FLOPs (two per multiplication) of all matrix products and convolutions.

    Those of all devices of a mesh count.

    The most expensive branch of a condition counts; loops with an unknown number of rounds count
    once. All positions of a convolution count, including those in the padding.
    """
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def _equation_flops(equation: JaxprEqn) -> float:
    name = equation.primitive.name
    if name == "dot_general":
        return _product_flops(equation)
    if name == "conv_general_dilated":
        return _convolution_flops(equation)
    inner = [traced_flops(program) for program in _programs(equation.params)]
    if name == "cond":
        return max(inner, default=0.0)
    times = 1
    if name == "scan":
        times = equation.params["length"]
    if name == "shard_map":
        times = equation.params["mesh"].size
    return float(times) * sum(inner)


def _programs(params: dict[str, Any]) -> Iterator[ClosedJaxpr | Jaxpr]:
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, ClosedJaxpr | Jaxpr):
                yield part


def _product_flops(equation: JaxprEqn) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, product = _array(equation.invars[0]), _array(equation.outvars[0])
    return 2.0 * product.size * math.prod(left.shape[axis] for axis in contracted)


def _convolution_flops(equation: JaxprEqn) -> float:
    kernel = _array(equation.invars[1]).shape
    _, inputs, *window = equation.params["dimension_numbers"].rhs_spec
    taps = kernel[inputs] * math.prod(kernel[axis] for axis in window)
    between = math.prod(equation.params["lhs_dilation"])  # entries between are zero
    batches = equation.params["batch_group_count"]
    return 2.0 * _array(equation.outvars[0]).size * taps / between / batches


def _array(variable: Any) -> Any:
    """Return the shape and size of a variable's value."""
    return variable.aval
