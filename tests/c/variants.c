/* `int check(void)`: 0 if each variant of tbc_net_variants passes its self-test, and tbc_choose takes
   the first whose bits a CPU has. */
#include "net.h"

static unsigned char arena[TBC_NET_ARENA_SIZE + TBC_NET_ARENA_ALIGN]
    __attribute__((aligned(TBC_NET_ARENA_ALIGN)));
static unsigned char input[TBC_NET_INPUT_X_BYTES] __attribute__((aligned(64)));
static unsigned char output[TBC_NET_OUTPUT_LOGITS_BYTES] __attribute__((aligned(64)));

int check(void);

int check(void) {
    const void *const inputs[] = {input};
    void *const outputs[] = {output};
    const tbc_call call = {inputs, outputs, arena, NULL, NULL, NULL, NULL, NULL};
    int count = 0;
    for (const tbc_model *const *at = tbc_net_variants; *at != NULL; at++, count++) {
        const tbc_model *const model = *at;
        if (model->weights != tbc_net_variants[0]->weights) return 1;
        if (model->arena_size > TBC_NET_ARENA_SIZE) return 2;
        if (tbc_choose(tbc_net_variants, model->cpu_bits) != model) return 3;
        const int32_t status = tbc_self_test(model, &call);
        if (status != TBC_OK) return 10 + status;
    }
    if (tbc_choose(tbc_net_variants, ~UINT64_C(0)) != tbc_net_variants[0]) return 4;
    const tbc_model *const none[] = {tbc_net_variants[0], NULL};
    if (tbc_choose(none, 0) != NULL && none[0]->cpu_bits != 0) return 5;
    return count == COUNT ? 0 : 6;
}
