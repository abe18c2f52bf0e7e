"""The `tbc_model` constant, held against a C compiler's idea of the structure."""

import adder
import pytest
from toolchain import EMULATED, STRICT, needs_cc, needs_zig, run, run_check

from tbc.codegen.host import host_target
from tbc.codegen.modelinfo import ModelInfo, TensorInfo
from tbc.target import parse

CHECK = """
#include "tbc.h"
extern const tbc_model tbc_adder;
extern const tbc_model *const tbc_models[];
int check(void);
static int same(const char *a, const char *b) {
    while (*a != 0 && *a == *b) a++, b++;
    return *a == *b;
}
static int is_tensor(const tbc_tensor *t, const char *name) {
    return same(t->name, name) && t->dtype == TBC_F32 && t->rank == 2 && t->shape[0] == 4 &&
           t->shape[1] == 3 && same(t->dims, "n,3") && t->bytes == 48;
}
static int run(int32_t (*once)(const tbc_call *)) {
    static const float x[6] = {1, 2, 3, 4, 5, 6}, y[6] = {10, 20, 30, 40, 50, 60};
    static const float expected[6] = {11.5f, 21, 37, 44.5f, 54, 70};
    static unsigned char room[128];
    static float sum[6];
    size_t n = 2, shape[2] = {0, 0};
    int i;
    const void *in[2];
    void *out[1];
    tbc_call call;
    in[0] = x;
    in[1] = y;
    out[0] = sum;
    call.inputs = in;
    call.outputs = out;
    call.arena = room + (64 - (uintptr_t)room % 64);
    call.state = NULL;
    call.weights = NULL;
    call.dims = &n;
    call.sync = NULL;
    if (once(&call) != TBC_OK) return 0;
    for (i = 0; i < 6; i++)
        if (sum[i] != expected[i]) return 0;
    if (tbc_adder.run_phase(&call, 0, 0, 1) != TBC_OK) return 0;
    if (tbc_adder.output_shape(&call, 0, shape) != TBC_OK) return 0;
    return shape[0] == 2 && shape[1] == 3;
}
int check(void) {
    const tbc_model *m = tbc_models[0];
    if (m != &tbc_adder || tbc_models[1] != NULL) return 1;
    if (m->abi != TBC_ABI || m->phases != 1) return 2;
    if (!same(m->name, "adder") || !same(m->version, "0.1.0")) return 3;
    if (!same(m->target, "TARGET") || m->cpu_bits != UINT64_C(BITS)) return 4;
    if (m->n_inputs != 2 || m->n_outputs != 1 || m->n_symbols != 1) return 5;
    if (!is_tensor(&m->inputs[0], "x") || !is_tensor(&m->inputs[1], "y.1")) return 6;
    if (!is_tensor(&m->outputs[0], "sum")) return 7;
    if (!same(m->symbols[0].name, "n") || m->symbols[0].lo != 0 || m->symbols[0].hi != 4) return 8;
    if (m->align != 64 || m->arena_size != 64 || m->state_size != 0) return 9;
    if (m->run_part != NULL) return 12;
    if (m->weights_size != 12 || m->weights_sum != tbc_sum(m->weights, 12)) return 10;
    return run(m->run) ? 0 : 11;
}
"""


def files(folder, target):
    """The check as C, and the model as an object."""
    source, obj = folder / "check.c", folder / "adder.o"
    source.write_text(CHECK.replace("TARGET", target.name).replace("BITS", hex(target.cpu_bits)))
    obj.write_bytes(adder.compiled(target, adder.info(target)))
    return source, obj


@needs_cc
def test_the_compiler_of_this_machine_reads_the_constant(tmp_path):
    (tmp_path / "main.c").write_text("int check(void);\nint main(void) { return check(); }\n")
    sources = (tmp_path / "main.c", *files(tmp_path, host_target()))
    run("cc", *STRICT, "-o", tmp_path / "check", *sources)
    run(tmp_path / "check")


@needs_zig
@pytest.mark.parametrize("name", EMULATED)
def test_other_compilers_read_the_constant(tmp_path, name):
    assert run_check(name, tmp_path, *files(tmp_path, parse(name))) == 0


@needs_zig
def test_the_check_can_fail(tmp_path):
    source, obj = files(tmp_path, parse("armv8"))
    source.write_text(source.read_text().replace("phases != 1", "phases != 2"))
    assert run_check("armv8", tmp_path, source, obj) == 2


def test_elements_of_a_scalar_and_of_an_empty_tensor():
    assert TensorInfo("s", 1, 0, (), "", 4).elements == 1
    assert TensorInfo("e", 1, 2, (0, 3), "0,3", 0).elements == 0


@pytest.mark.parametrize("wrong", [{"name": "a b"}, {"name": "1a"}, {"align": 0}, {"align": 24}])
def test_a_model_has_an_identifier_for_a_name_and_a_power_of_two_as_alignment(wrong):
    fields = adder.info(parse("x86-64")).__dict__ | wrong
    with pytest.raises(AssertionError):
        ModelInfo(**fields)
