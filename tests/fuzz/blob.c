/* Opens changed blobs, and reads all that an opened one describes. Nothing in them is run.
 *
 *     cc -fsanitize=address,undefined ... blob.c ../../runtime/src/tbc_blob.c -o fuzz
 *     ./fuzz SECONDS SEED FILE...          the last of them most of the time
 *
 * Each change is tried as it is, and with the checksum put right, since without that nothing would
 * be seen but the checksum. With -DLIBFUZZER, LLVMFuzzerTestOneInput is all that there is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tbc_blob.h"

enum { HEADER = 160, PAGE = 4096, MOST = 1 << 16 };

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static unsigned long tried, opened;
static volatile size_t sink;

static void need(int condition) {
    if (!condition) abort();
}

static void read_tensor(const tbc_tensor *tensor) {
    sink += strlen(tensor->name) + strlen(tensor->dims) + tensor->bytes;
    for (uint32_t i = 0; i < tensor->rank; i++) sink += tensor->shape[i];
}

/* What holds of every opened blob. */
static void look_at(const tbc_model *model, const unsigned char *blob, size_t size) {
    const uintptr_t code[4] = {
        (uintptr_t)model->run, (uintptr_t)model->run_phase, (uintptr_t)model->output_shape,
        (uintptr_t)model->run_part};
    need(model->abi == TBC_ABI);
    for (int i = 0; i < 4; i++) {
        need((code[i] >= (uintptr_t)blob && code[i] < (uintptr_t)blob + size) || (i == 3 && !code[i]));
    }
    sink += strlen(model->name) + strlen(model->version) + strlen(model->target);
    for (uint32_t i = 0; i < model->n_inputs; i++) read_tensor(model->inputs + i);
    for (uint32_t i = 0; i < model->n_outputs; i++) read_tensor(model->outputs + i);
    for (uint32_t i = 0; i < model->n_symbols; i++) {
        sink += strlen(model->symbols[i].name);
        need(model->symbols[i].lo <= model->symbols[i].hi);
    }
    sink += tbc_sum(model->weights, model->weights_size);
    if (model->weights_size != 0) need((uintptr_t)model->weights % model->align == 0);
}

/* Open a blob in memory that ends where it ends, into memory that ends where it should. */
static void try(const unsigned char *data, size_t size) {
    void *blob = NULL, *memory;
    const tbc_model *model;
    if (size == 0 || posix_memalign(&blob, PAGE, size) != 0) return;
    memcpy(blob, data, size);
    const size_t room = tbc_blob_bytes(blob, size);
    memory = malloc(room + 1);
    tried++;
    if (memory != NULL && tbc_open(blob, size, ~UINT64_C(0), memory, room, &model) == TBC_OK) {
        opened++;
        look_at(model, blob, size);
        need(tbc_open(blob, size, ~UINT64_C(0), memory, room - 1, &model) == TBC_ERROR_MEMORY);
    }
    free(memory);
    free(blob);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    static unsigned char copy[MOST];
    if (size > MOST) return 0;
    try(data, size);
    if (size < HEADER) return 0;
    memcpy(copy, data, size);
    uint64_t length;
    memcpy(&length, copy + 24, sizeof length);
    const size_t end = length >= HEADER && length <= size ? (size_t)length : size;
    const uint32_t sum = tbc_sum(copy + 8, end - 8);
    memcpy(copy + 4, &sum, sizeof sum);
    try(copy, size);
    return 0;
}

#ifndef LIBFUZZER
static uint64_t state;

/* xorshift64* of S. Vigna. */
static uint64_t any(uint64_t below) {
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return state * UINT64_C(2685821657736338717) % below;
}

/* A number that may matter: small, a bound, or close to one that the blob holds. */
static uint64_t number(size_t size) {
    static const uint64_t bounds[] = {0, 1, 2, 4, 8, HEADER, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX};
    switch (any(4)) {
    case 0: return bounds[any(sizeof bounds / sizeof *bounds)];
    case 1: return any(64);
    case 2: return size + any(17) - 8;
    default: return any(UINT64_MAX);
    }
}

static size_t change(unsigned char *data, size_t size) {
    const size_t table = any(4) != 0 && size > HEADER ? HEADER + 160 : size;
    const size_t at = any(table < size ? table : size);
    const size_t width = any(2) ? 4 : 8, place = at / 4 * 4;
    uint64_t value = number(size);
    switch (any(8)) {
    case 0: data[at] ^= (unsigned char)(1u << any(8)); break;
    case 1: data[at] = (unsigned char)any(256); break;
    case 2: return 1 + any(size);
    case 3: return size < MOST - 64 ? memset(data + size, 0, 64), size + any(64) : size;
    case 4:
        if (place + 4 <= size) {
            uint32_t old;
            memcpy(&old, data + place, 4);
            old += (uint32_t)any(33) - 16;
            memcpy(data + place, &old, 4);
        }
        break;
    case 5: memmove(data + at, data + any(size), any(size - at) / 8); break;
    default:
        if (place + width <= size) memcpy(data + place, &value, width);
    }
    return size;
}

int main(int argc, char **argv) {
    static unsigned char seeds[16][MOST], data[MOST];
    size_t sizes[16];
    int count = 0;
    if (argc < 4) return 2;
    state = strtoull(argv[2], NULL, 10) * 2 + 1;
    for (; count < argc - 3 && count < 16; count++) {
        FILE *const file = fopen(argv[3 + count], "rb");
        if (file == NULL) return 2;
        sizes[count] = fread(seeds[count], 1, MOST, file);
        fclose(file);
        const unsigned long before = opened;
        LLVMFuzzerTestOneInput(seeds[count], sizes[count]);
        need(opened == before + 2);
    }
    const time_t end = time(NULL) + atol(argv[1]);
    do {
        for (int i = 0; i < 1000; i++) {
            const size_t seed = any(16) ? (size_t)count - 1 : any((uint64_t)count);
            size_t size = sizes[seed];
            memcpy(data, seeds[seed], size);
            for (uint64_t n = 1 + any(4); n > 0; n--) size = change(data, size);
            LLVMFuzzerTestOneInput(data, size);
        }
    } while (time(NULL) < end);
    printf("%lu blobs tried, %lu opened\n", tried, opened);
    return 0;
}
#endif
