"""Parser for the text of a compiled program (XLA's HLO): computations and instructions.

Only the parts that cost analysis needs are kept: names, shapes, operands, called computations, and
the source location of each instruction.
"""

import dataclasses
import re

from s3_jax.analysis.hlo_shapes import ArrayShape, parse_shapes

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_NAME = re.compile(r"^  (ROOT )?%?([\w.\-]+) = ")
_REFERENCE = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations|true_computation|false_computation)="
    r"(\{[^}]*\}|%[\w.\-]+)"
)
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TABLE_ROW = re.compile(r"^(\d+) (.*)$")
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    operands: names of instructions.
    literal: the value instead of operands, such as a constant or a parameter's number.
    called: (role, computation), such as ("body", "region_1").
    op_name: the path of transformations and modules under which it was traced.
    frame: number of its source location, 0 for none.
    cycles: the compiler's own estimate, if any.
    text: everything after the operands.
    """

    name: str
    opcode: str
    shapes: tuple[ArrayShape, ...]
    operands: tuple[str, ...]
    literal: str
    called: tuple[tuple[str, str], ...]
    op_name: str
    frame: int
    cycles: int
    text: str
    root: bool = False


@dataclasses.dataclass
class Computation:
    """Instructions by name, in the order they run; `root` is the one whose value is returned."""

    name: str
    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        """The instruction whose value is the computation's result."""
        return next(
            (one for one in self.instructions.values() if one.root),
            list(self.instructions.values())[-1],
        )


@dataclasses.dataclass
class Program:
    """Computations by name, the entry computation, and the source locations of frames."""

    computations: dict[str, Computation]
    entry: str
    sources: dict[int, tuple["Source", ...]]


@dataclasses.dataclass(frozen=True)
class Source:
    """A location in a source file."""

    file: str
    function: str
    line: int


def parse_program(text: str) -> Program:
    """Parse the output of `jax.stages.Compiled.as_text`.

    Raises:
      ValueError: the text holds no program.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", None
    tables: dict[str, dict[int, str]] = {name: {} for name in _TABLES}
    table = None
    for line in text.splitlines():
        if current is not None:
            if line.startswith("}"):
                current = None
            elif instruction := parse_instruction(line):
                current.instructions[instruction.name] = instruction
        elif line in tables:
            table = tables[line]
        elif header := _HEADER.match(line):
            current = Computation(header.group(2), {})
            computations[current.name] = current
            entry = current.name if header.group(1) else entry
        elif table is not None and (row := _TABLE_ROW.match(line)):
            table[int(row.group(1))] = row.group(2)
    if not entry:
        raise ValueError("the text holds no compiled program: there is no ENTRY computation")
    return Program(computations, entry, _sources(tables))


def parse_instruction(line: str) -> Instruction | None:
    """Parse one line of a computation; return None if it is not an instruction."""
    start = _NAME.match(line)
    if not start:
        return None
    shape_end = _shape_end(line, start.end())
    open_at = line.index("(", shape_end)
    close_at = _closing(line, open_at)
    rest = line[close_at + 1 :]
    op_name, frame, cycles = (found.search(rest) for found in (_OP_NAME, _FRAME, _CYCLES))
    return Instruction(
        name=start.group(2),
        opcode=line[shape_end:open_at].strip(),
        shapes=parse_shapes(line[start.end() : shape_end]),
        operands=tuple(_REFERENCE.findall(line[open_at:close_at])),
        literal=line[open_at + 1 : close_at] if "%" not in line[open_at:close_at] else "",
        called=_called(rest),
        op_name=op_name.group(1) if op_name else "",
        frame=int(frame.group(1)) if frame else 0,
        cycles=int(cycles.group(1)) if cycles else 0,
        text=rest,
        root=bool(start.group(1)),
    )


def _called(rest: str) -> tuple[tuple[str, str], ...]:
    found = []
    for role, names in _CALLED.findall(rest):
        found += [(role, name) for name in _REFERENCE.findall(names)]
    return tuple(found)


def _shape_end(line: str, start: int) -> int:
    """Return the index after the shape, which may be a tuple with parentheses inside."""
    if line[start] == "(":
        return _closing(line, start) + 1
    return line.index(" ", start)


def _closing(line: str, open_at: int) -> int:
    """Return the index of the parenthesis that closes the one at `open_at`; skip quoted text."""
    depth, quoted = 0, False
    for index in range(open_at, len(line)):
        character = line[index]
        if character == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if depth == 0:
                return index
    raise ValueError(f"a parenthesis is not closed in: {line[:80]}")


def _sources(tables: dict[str, dict[int, str]]) -> dict[int, tuple[Source, ...]]:
    """Return the source locations of every frame, innermost first."""
    files = {number: text.strip('"') for number, text in tables["FileNames"].items()}
    functions = {number: text.strip('"') for number, text in tables["FunctionNames"].items()}
    places, parents, at = {}, {}, {}
    for number, text in tables["FileLocations"].items():
        field = _fields(text)
        places[number] = Source(
            files.get(field.get("file_name_id", 0), ""),
            functions.get(field.get("function_name_id", 0), ""),
            field.get("line", 0),
        )
    for number, text in tables["StackFrames"].items():
        field = _fields(text)
        at[number] = field.get("file_location_id", 0)
        parents[number] = field.get("parent_frame_id", 0) - 1  # written one too high
    return {number: _stack(number, places, at, parents) for number in at}


def _stack(
    number: int, places: dict[int, Source], at: dict[int, int], parents: dict[int, int]
) -> tuple[Source, ...]:
    found: list[Source] = []
    while number in at:
        if at[number] in places:
            found.append(places[at[number]])
        number = parents[number]
    return tuple(found)


def _fields(text: str) -> dict[str, int]:
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", text)}
