/* Runs a model call after call with an inaccessible page in front of and behind every buffer.
 *
 *     guarded start|end PARTS [DIM...]
 *
 * The buffers begin where their first page does, or end where their last page does. What a model
 * only reads cannot be written. Standard input holds, for each call and each input, its size as
 * size_t and its bytes; the outputs' bytes go to standard output. With several parts the last comes
 * first.
 *
 * MODEL is the constant's name.
 */
#define _DEFAULT_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tbc.h"

extern const tbc_model MODEL;

enum { MOST = 16 };

/* Bytes between two inaccessible pages. */
typedef struct {
    unsigned char *pages, *bytes;
    size_t room, size;
} buffer;

static int at_end;

static void need(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "guarded: %s\n", what);
    exit(2);
}

static buffer allocate(size_t size, size_t align) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    buffer b;
    b.size = size;
    b.room = (size + page - 1) / page * page;
    unsigned char *const all = mmap(NULL, b.room + 2 * page, PROT_NONE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(all != MAP_FAILED, "mmap");
    b.pages = all + page;
    need(!mprotect(b.pages, b.room, PROT_READ | PROT_WRITE), "mprotect");
    memset(b.pages, 0xa5, b.room);
    b.bytes = b.pages + (at_end ? (b.room - size) / align * align : 0);
    return b;
}

static void forbid_writing(const buffer *b) {
    need(!mprotect(b->pages, b->room, PROT_READ), "mprotect");
}

static size_t element_size(uint32_t dtype) {
    switch (dtype) {
    case TBC_U8:
    case TBC_I8:
    case TBC_BOOL: return 1;
    case TBC_U16:
    case TBC_I16:
    case TBC_F16:
    case TBC_BF16: return 2;
    case TBC_I64:
    case TBC_U64:
    case TBC_F64: return 8;
    default: return 4;
    }
}

static size_t output_size(const tbc_call *call, uint32_t index) {
    const tbc_tensor *const tensor = &MODEL.outputs[index];
    size_t shape[MOST], size = element_size(tensor->dtype);
    need(MODEL.output_shape(call, index, shape) == TBC_OK, "output_shape");
    for (uint32_t axis = 0; axis < tensor->rank; axis++) {
        need(shape[axis] <= tensor->shape[axis], "an output is larger than its upper bound");
        size *= shape[axis];
    }
    return size;
}

static buffer read_input(uint32_t index) {
    size_t size;
    need(fread(&size, sizeof size, 1, stdin) == 1, "the inputs are too short");
    const buffer b = allocate(size, element_size(MODEL.inputs[index].dtype));
    need(fread(b.bytes, 1, size, stdin) == size, "the inputs are too short");
    forbid_writing(&b);
    return b;
}

static int is_more(void) {
    const int next = getchar();
    if (next != EOF) ungetc(next, stdin);
    return next != EOF;
}

static int32_t run(const tbc_call *call, uint32_t parts) {
    if (parts == 1) return MODEL.run(call);
    for (uint32_t phase = 0; phase < MODEL.phases; phase++) {
        for (uint32_t part = parts; part-- > 0;) {
            const int32_t status = MODEL.run_phase(call, phase, part, parts);
            if (status != TBC_OK) return status;
        }
    }
    return TBC_OK;
}

int main(int argc, char **argv) {
    const void *inputs[MOST];
    void *outputs[MOST];
    size_t dims[MOST];
    buffer output[MOST];

    need(argc >= 3 && argc - 3 == (int)MODEL.n_symbols, "usage: guarded start|end PARTS [DIM...]");
    need(MODEL.n_inputs <= MOST && MODEL.n_outputs <= MOST && MODEL.n_symbols <= MOST, "too many");
    at_end = strcmp(argv[1], "end") == 0;
    for (uint32_t i = 0; i < MODEL.n_symbols; i++) dims[i] = strtoul(argv[3 + i], NULL, 10);
    const buffer arena = allocate(MODEL.arena_size, MODEL.align);
    const buffer weights = allocate(MODEL.weights_size, MODEL.align);
    if (MODEL.weights_size != 0) memcpy(weights.bytes, MODEL.weights, MODEL.weights_size);
    forbid_writing(&weights);
    need(tbc_sum(weights.bytes, MODEL.weights_size) == MODEL.weights_sum, "the weights' checksum");

    const buffer state = allocate(MODEL.state_size, MODEL.align);
    memset(state.bytes, 0, MODEL.state_size);
    const tbc_call call = {inputs, outputs, arena.bytes, state.bytes, weights.bytes, dims, NULL, NULL};
    for (uint32_t i = 0; i < MODEL.n_outputs; i++) {
        output[i] = allocate(output_size(&call, i), element_size(MODEL.outputs[i].dtype));
        outputs[i] = output[i].bytes;
    }
    do {
        for (uint32_t i = 0; i < MODEL.n_inputs; i++) inputs[i] = read_input(i).bytes;
        const int32_t status = run(&call, (uint32_t)strtoul(argv[2], NULL, 10));
        need(status == TBC_OK, tbc_status_text(status));
        for (uint32_t i = 0; i < MODEL.n_outputs; i++) {
            need(fwrite(output[i].bytes, 1, output[i].size, stdout) == output[i].size, "write");
        }
    } while (is_more());
    return 0;
}
