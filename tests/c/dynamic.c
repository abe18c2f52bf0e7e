/* Opens the library LIBRARY with the system's dynamic loader, and runs its first model on standard
 * input: for each input its bytes at the upper bounds. To standard output: the bytes of each output.
 *
 * Declares what it needs of the C library, and has no start files, so that the headers and start
 * files of a foreign system need not be there.
 */
#include "tbc.h"

void *dlopen(const char *file, int mode);
void *dlsym(void *library, const char *name);
long read(int file, void *data, size_t size);
long write(int file, const void *data, size_t size);
void _exit(int status);

enum { MOST = 8, ROOM = 1 << 20, NOW = 2 };
static unsigned char pool[ROOM] __attribute__((aligned(64)));

static void transfer(int out, void *at, size_t size) {
    unsigned char *next = at;
    while (size > 0) {
        const long done = out ? write(1, next, size) : read(0, next, size);
        if (done <= 0) _exit(3);
        next += done;
        size -= (size_t)done;
    }
}

static void check(void) {
    void *const library = dlopen(LIBRARY, NOW);
    const tbc_model *const *const models = library ? dlsym(library, "tbc_models") : NULL;
    if (models == NULL || models[0] == NULL || models[1] != NULL) _exit(2);
    const tbc_model *const model = models[0];
    const void *inputs[MOST];
    void *outputs[MOST];
    tbc_call call = {inputs, outputs, pool, NULL, NULL, NULL, NULL, NULL};
    size_t used = (model->arena_size + 63) / 64 * 64;
    for (uint32_t i = 0; i < model->n_inputs; i++) {
        transfer(0, pool + used, model->inputs[i].bytes);
        inputs[i] = pool + used;
        used += (model->inputs[i].bytes + 63) / 64 * 64;
    }
    for (uint32_t i = 0; i < model->n_outputs; i++) {
        outputs[i] = pool + used;
        used += (model->outputs[i].bytes + 63) / 64 * 64;
    }
    if (used > ROOM || tbc_sum(model->weights, model->weights_size) != model->weights_sum) _exit(4);
    const int32_t status = model->run(&call);
    if (status != TBC_OK) _exit(10 + status);
    for (uint32_t i = 0; i < model->n_outputs; i++) transfer(1, outputs[i], model->outputs[i].bytes);
    _exit(0);
}

#if defined(__i386__) || defined(__x86_64__)
__attribute__((force_align_arg_pointer))
#endif
void _start(void) {
    check();
}
