/* Classifies the held-out digits with the first model of a shared library, which it opens. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "tbc.h"
#include "test_digits.h"

enum { CLASSES = 10 };

static size_t largest(const float logits[CLASSES]) {
    size_t best = 0;
    for (size_t i = 1; i < CLASSES; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

int main(int argc, char **argv) {
    void *const library = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    const tbc_model *const *const models = library ? dlsym(library, "tbc_models") : NULL;
    if (models == NULL || models[0] == NULL || models[1] != NULL) {
        fprintf(stderr, "not a library of one model\n");
        return 2;
    }
    const tbc_model *const model = models[0];
    unsigned char *const room = malloc(model->arena_size + model->align);
    if (room == NULL || tbc_check(model, tbc_cpu_bits()) != TBC_OK) return 2;
    unsigned char *const arena = room + (model->align - (uintptr_t)room % model->align);

    int correct = 0;
    for (size_t i = 0; i < TEST_DIGITS; i++) {
        float x[TEST_PIXELS], logits[CLASSES];
        const void *const inputs[] = {x};
        void *const outputs[] = {logits};
        const tbc_call call = {inputs, outputs, arena, NULL, NULL, NULL, NULL, NULL};
        for (size_t p = 0; p < TEST_PIXELS; p++) x[p] = (float)test_images[i][p] / 16.0f;
        const int32_t status = model->run(&call);
        if (status != TBC_OK) {
            fprintf(stderr, "%s: %s\n", model->name, tbc_status_text(status));
            return 1;
        }
        correct += largest(logits) == test_labels[i];
        printf("%u", (unsigned)largest(logits));
    }
    printf("\n%s: %d of %d images correct\n", model->name, correct, TEST_DIGITS);
    free(room);
    dlclose(library);
    return 0;
}
