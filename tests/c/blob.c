/* Runs the adder's blob twice: read into memory that may run, and mapped. Prints the sums. */
#define _DEFAULT_SOURCE 1

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tbc_blob.h"

static int run(const tbc_model *model) {
    static union {
        float values[12];
        unsigned char arena[4096];
    } x, sum, arena;
    const size_t dims[] = {4};
    const void *const inputs[] = {x.values, x.values};
    void *const outputs[] = {sum.values};
    unsigned char *const start = arena.arena + (64 - (uintptr_t)arena.arena % 64);
    const tbc_call call = {inputs, outputs, start, NULL, NULL, dims, NULL, NULL};
    size_t shape[2] = {0, 0};
    if (model->arena_size > sizeof arena - 64 || model->n_inputs != 2 || model->n_outputs != 1 ||
        model->outputs[0].shape[0] != 4 || strcmp(model->symbols[0].name, "n") != 0) {
        return 2;
    }
    for (int i = 0; i < 12; i++) x.values[i] = (float)i;
    int32_t status = model->run(&call);
    if (status == TBC_OK) status = model->output_shape(&call, 0, shape);
    if (status != TBC_OK || shape[0] != 4 || shape[1] != 3) return 3;
    for (int i = 0; i < 12; i++) printf("%g ", (double)sum.values[i]);
    printf("\n");
    return 0;
}

static int run_in_memory(const char *path) {
    static uint64_t memory[(TBC_BLOB_BYTES(3, 1) + 7) / 8];
    const int all = PROT_READ | PROT_WRITE | PROT_EXEC;
    void *const room = mmap(NULL, 1 << 20, all, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    FILE *const file = fopen(path, "rb");
    const tbc_model *model;
    if (room == MAP_FAILED || file == NULL) return 4;
    const size_t length = fread(room, 1, 1 << 20, file);
    (void)fclose(file);
    if (tbc_blob_bytes(room, length) != TBC_BLOB_BYTES(3, 1)) return 5;
    if (tbc_open(room, length, tbc_cpu_bits(), memory, sizeof memory - 8, &model) != TBC_ERROR_MEMORY) {
        return 6;
    }
    if (tbc_open(room, length, tbc_cpu_bits(), memory, sizeof memory, &model) != TBC_OK) return 7;
    return run(model);
}

int main(int argc, char **argv) {
    tbc_mapping mapping;
    if (argc != 2) return 1;
    const int result = run_in_memory(argv[1]);
    if (result != 0) return result;
    const int32_t status = tbc_map(argv[1], tbc_cpu_bits(), &mapping);
    if (status != TBC_OK) {
        fprintf(stderr, "%s\n", tbc_status_text(status));
        return 8;
    }
    const int again = run(mapping.model);
    tbc_close(&mapping);
    return again;
}
