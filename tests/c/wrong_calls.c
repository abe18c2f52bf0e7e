/* Calls the model `probe` wrongly, in every way that it can tell; prints what goes unnoticed.
 *
 * probe: at i32[n, 3], n from 1 to 4; rows of a table of 5 by these indices, i32[n, 3, 8].
 */
#include <stdio.h>

#include "probe.h"

enum { ROWS = 4, WIDTH = 8 };

static unsigned char room[TBC_PROBE_ARENA_SIZE + 2 * TBC_PROBE_ARENA_ALIGN];
static int failures;

static void expect(const char *what, int32_t status, int32_t expected) {
    if (status == expected) return;
    printf("%s: %d (%s), not %d\n", what, (int)status, tbc_status_text(status), (int)expected);
    failures++;
}

static void *arena(size_t off) {
    const size_t past = (uintptr_t)room % TBC_PROBE_ARENA_ALIGN;
    return room + (TBC_PROBE_ARENA_ALIGN - past) + off;
}

/* The status of run, which run_phase and run_part must return too. */
static int32_t all(const tbc_call *call) {
    const int32_t status = tbc_probe.run(call);
    tbc_sync sync = {0, NULL, NULL};
    tbc_call alone = *call;

    alone.sync = &sync;
    if (tbc_probe.run_part != NULL && tbc_probe.run_part(&alone, 0, 1) != status) {
        printf("run_part does not see what run sees\n");
    }
    if (sync.arrived != 0) printf("run_part leaves a count of arrivals\n");
    for (uint32_t phase = 0; phase < tbc_probe.phases; phase++) {
        const int32_t other = tbc_probe.run_phase(call, phase, 0, 1);
        if (other != status && other != TBC_OK) return other;
        if (other != TBC_OK) return status;
    }
    if (status != TBC_OK) printf("run_phase does not see what run sees\n");
    return status;
}

static void pointers(tbc_call good) {
    const void *const no_input[] = {NULL};
    void *const no_output[] = {NULL};
    tbc_call call = good;
    expect("no call", tbc_probe.run(NULL), TBC_ERROR_NULL);
    expect("no call of a phase", tbc_probe.run_phase(NULL, 0, 0, 1), TBC_ERROR_NULL);
    if (tbc_probe.run_part != NULL) {
        expect("no call of a part", tbc_probe.run_part(NULL, 0, 1), TBC_ERROR_NULL);
        expect("nowhere to wait", tbc_probe.run_part(&good, 0, 1), TBC_ERROR_NULL);
        expect("a part too many", tbc_probe.run_part(&good, 2, 2), TBC_ERROR_DIM);
        expect("no parts", tbc_probe.run_part(&good, 0, 0), TBC_ERROR_DIM);
    }
    call.inputs = NULL;
    expect("no inputs", all(&call), TBC_ERROR_NULL);
    call.inputs = no_input;
    expect("an input that is NULL", all(&call), TBC_ERROR_NULL);
    call = good;
    call.outputs = NULL;
    expect("no outputs", all(&call), TBC_ERROR_NULL);
    call.outputs = no_output;
    expect("an output that is NULL", all(&call), TBC_ERROR_NULL);
    call = good;
    call.arena = NULL;
    expect("no arena", all(&call), TBC_ERROR_NULL);
    call.arena = arena(1);
    expect("an arena off by a byte", all(&call), TBC_ERROR_ALIGN);
    call.arena = arena(TBC_PROBE_ARENA_ALIGN / 2);
    expect("an arena off by half its alignment", all(&call), TBC_ERROR_ALIGN);
    call = good;
    call.weights = (const unsigned char *)tbc_probe.weights + 4;
    expect("weights off by 4 bytes", all(&call), TBC_ERROR_ALIGN);
    call.weights = tbc_probe.weights;
    expect("weights of the model", all(&call), TBC_OK);
    call = good;
    call.dims = NULL;
    expect("no dims", all(&call), TBC_ERROR_NULL);
}

static void sizes(tbc_call good) {
    size_t shape[3] = {0, 0, 0};
    const size_t few = 0, many = ROWS + 1, huge = SIZE_MAX, two = 2;
    tbc_call call = good;
    call.dims = &few;
    expect("a size below its range", all(&call), TBC_ERROR_DIM);
    expect("its output's shape", tbc_probe.output_shape(&call, 0, shape), TBC_ERROR_DIM);
    call.dims = &many;
    expect("a size above its range", all(&call), TBC_ERROR_DIM);
    call.dims = &huge;
    expect("a huge size", all(&call), TBC_ERROR_DIM);
    call.dims = &two;
    expect("a size in range", all(&call), TBC_OK);
    expect("its output's shape", tbc_probe.output_shape(&call, 0, shape), TBC_OK);
    if (shape[0] != 2 || shape[1] != 3 || shape[2] != WIDTH) {
        printf("the shape is not 2, 3, 8\n");
        failures++;
    }
    expect("output 1", tbc_probe.output_shape(&call, 1, shape), TBC_ERROR_DIM);
    expect("no shape", tbc_probe.output_shape(&call, 0, NULL), TBC_ERROR_NULL);
    expect("no call", tbc_probe.output_shape(NULL, 0, shape), TBC_ERROR_NULL);
    expect("a phase too many", tbc_probe.run_phase(&call, tbc_probe.phases, 0, 1), TBC_ERROR_DIM);
    expect("part 2 of 2", tbc_probe.run_phase(&call, 0, 2, 2), TBC_ERROR_DIM);
    expect("part 0 of 0", tbc_probe.run_phase(&call, 0, 0, 0), TBC_ERROR_DIM);
}

static void values(tbc_call good, int32_t at[ROWS * 3]) {
    at[5] = 5;
    expect("an index behind its axis", all(&good), TBC_ERROR_VALUE);
    at[5] = -6;
    expect("an index before its axis", all(&good), TBC_ERROR_VALUE);
    at[5] = -5;
    expect("the first index from the end", all(&good), TBC_OK);
    at[5] = 4;
}

static void models(void) {
    tbc_model other = tbc_probe;
    expect("no model", tbc_check(NULL, 0), TBC_ERROR_NULL);
    expect("this model and CPU", tbc_check(&tbc_probe, tbc_cpu_bits()), TBC_OK);
    other.abi++;
    expect("another ABI", tbc_check(&other, tbc_cpu_bits()), TBC_ERROR_ABI);
    other = tbc_probe;
    other.cpu_bits |= UINT64_C(1) << 63;
    expect("another CPU", tbc_check(&other, tbc_cpu_bits()), TBC_ERROR_CPU);
    if (tbc_sum(tbc_probe.weights, tbc_probe.weights_size) != tbc_probe.weights_sum) {
        printf("the checksum of the weights is wrong\n");
        failures++;
    }
}

int main(void) {
    int32_t at[ROWS * 3] = {0, 1, 2, 3, 4, 0, -1, -2, -3, -4, -5, 1};
    int32_t y[ROWS * 3 * WIDTH];
    const void *const inputs[] = {at};
    void *const outputs[] = {y};
    const size_t n = ROWS;
    const tbc_call good = {inputs, outputs, arena(0), NULL, NULL, &n, NULL, NULL};

    expect("a good call", all(&good), TBC_OK);
    pointers(good);
    sizes(good);
    values(good, at);
    models();
    expect("a good call after all", all(&good), TBC_OK);
    for (int i = 0; i < ROWS * 3; i++) {
        const int32_t row = at[i] < 0 ? at[i] + 5 : at[i];
        for (int j = 0; j < WIDTH; j++) {
            if (y[i * WIDTH + j] == row * WIDTH + j) continue;
            printf("element %d, %d is %d\n", i, j, (int)y[i * WIDTH + j]);
            failures++;
        }
    }
    return failures != 0;
}
