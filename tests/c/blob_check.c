/* `int check(void)`: 0 if the blob that is linked in gives the expected outputs where it lies, and
   passes its self-test, which it does not with other words. */
#include "tbc_blob.h"

/* Of data.S, which the test writes: the blob in memory that may run, its input and its output. */
extern const unsigned char blob[], blob_end[], input[], expected[], expected_end[];

enum { ARENA = 12288 };
static unsigned char arena[ARENA] __attribute__((aligned(64)));
static unsigned char output[64] __attribute__((aligned(64)));
static unsigned char scratch[256] __attribute__((aligned(64)));
static uint64_t memory[(TBC_BLOB_BYTES(2, 0) + 7) / 8];

int check(void);

int check(void) {
    const size_t length = (size_t)(blob_end - blob), size = (size_t)(expected_end - expected);
    const tbc_model *model;
    const void *const inputs[] = {input};
    void *const outputs[] = {output};
    const tbc_call call = {inputs, outputs, arena, NULL, NULL, NULL, NULL, NULL};
    if (tbc_blob_bytes(blob, length) != TBC_BLOB_BYTES(2, 0)) return 1;
    /* What is before the blob's last byte does not add up. */
    if (tbc_open(blob, length - 1, 0, memory, sizeof memory, &model) != TBC_ERROR_BLOB) return 2;
    const int32_t status = tbc_open(blob, length, ~UINT64_C(0), memory, sizeof memory, &model);
    if (status != TBC_OK) return 20 + status;
    if (model->arena_size > ARENA || model->outputs[0].bytes != size || size > sizeof output) return 3;
    if ((const unsigned char *)model->weights < blob || model->weights_size == 0) return 4;
    const int32_t ran = model->run(&call);
    if (ran != TBC_OK) return 40 + ran;
    for (size_t i = 0; i < size; i++) {
        if (output[i] != expected[i]) return 5;
    }
    const void *const scratches[] = {scratch};
    const tbc_call test = {scratches, outputs, arena, NULL, NULL, NULL, NULL, NULL};
    if (model->inputs[0].bytes > sizeof scratch) return 6;
    const int32_t tested = tbc_self_test(model, &test);
    if (tested != TBC_OK) return 60 + tested;
    const uint32_t wrong[] = {model->self_test[0] ^ 1, model->self_test[1], model->self_test[2]};
    tbc_model *const other = (tbc_model *)(void *)memory; /* tbc_open has made it there */
    other->self_test = wrong;
    if (tbc_self_test(other, &test) != TBC_ERROR_SELF_TEST) return 7;
    other->self_test = NULL;
    return tbc_self_test(other, &test) == TBC_ERROR_NO_TEST ? 0 : 8;
}
