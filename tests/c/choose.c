/* Takes each branch of a model `choose` once, in an arena that nothing has been written to.
 * A memory checker then sees whether a result depends on what the other branch did not compute. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "choose.h"

#define COUNT 48

int main(void) {
    float x[COUNT], y[COUNT];

    for (int i = 0; i < COUNT; i++) x[i] = (float)(i - COUNT / 2) / 8.0f;
    for (uint8_t choice = 0; choice < 2; choice++) {
        unsigned char *const room = malloc(TBC_CHOOSE_ARENA_SIZE + TBC_CHOOSE_ARENA_ALIGN);
        const void *const inputs[] = {x, &choice};
        void *const outputs[] = {y};
        tbc_call call = {inputs, outputs, NULL, NULL, NULL, NULL, NULL, NULL};
        int positive = 0;

        if (room == NULL) return 1;
        call.arena = room + TBC_CHOOSE_ARENA_ALIGN - (uintptr_t)room % TBC_CHOOSE_ARENA_ALIGN;
        if (tbc_choose_.run(&call) != TBC_OK) return 1;
        for (int i = 0; i < COUNT; i++) positive += y[i] > 0.0f;
        printf("%d\n", positive);
        free(room);
    }
    return 0;
}
