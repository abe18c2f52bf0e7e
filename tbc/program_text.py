"""A program as text, for people."""

from __future__ import annotations

from tbc.program import Alone, Buffer, ByRows, Program, Step, out_buffer


def program_text(program: Program) -> str:
    """The steps of a program, by phase, each with where it reads and writes, a body's set in."""
    state = f"state {program.state_size} bytes, " if program.states else ""
    fast = f"fast {program.fast_size} bytes, " if program.fast_size else ""
    sizes = f"arena {program.arena_size} bytes, {fast}{state}weights {program.weights_size} bytes"
    lines = [sizes, ""]
    steps = [(number, step) for number, phase in enumerate(program.phases) for step in phase]
    for number, step in steps:
        kernels = getattr(step.anchor.op, "kernels", ())
        title = " ".join(kernels) or type(step.anchor.op).__name__
        if step.copy_to is None:
            out = ", ".join(_place(program.buffers[v]) for v in step.results)
        else:
            out = _place(out_buffer(program, step))
        reads = ", ".join(_place(program.buffers[v]) for v in step.reads)
        how = _division(step)
        lines.append(
            f"{number:4} {title} {step.root.type} {out} <- {reads}{how}  # {step.root.origin}"
        )
        if (rounds := step.rounds) is not None:
            inner = program_text(rounds.program).splitlines()
            where = f"{rounds.place}+{rounds.scratch}, weights +{rounds.weights}: "
            lines += [f"     {where}{inner[0]}", *(f"     {line}" for line in inner[2:])]
    return "\n".join(lines) + "\n"


def _place(buffer: Buffer) -> str:
    if buffer.place in ("input", "output"):
        return f"{buffer.place}{buffer.index}"
    order = "" if buffer.order == tuple(range(len(buffer.order))) else f" {buffer.order}"
    panels = f" panels of {buffer.panels.width}" if buffer.panels else ""
    return f"{buffer.place}+{buffer.offset}{order}{panels}"


def _division(step: Step) -> str:
    """How the parts of a phase share a step, if that is not left to its code."""
    match step.division:
        case Alone(part):
            return f" in part {part}"
        case ByRows(axis, multiple):
            return f" by {multiple} of axis {axis}"
        case _:
            return ""
