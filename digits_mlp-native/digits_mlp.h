/* digits_mlp: compiled by tbc 0.1.0 for native. Generated; do not edit. */
#ifndef TBC_DIGITS_MLP_H
#define TBC_DIGITS_MLP_H

#include "tbc.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Define TBC_DIGITS_MLP_SHARED on Windows where the model comes from a DLL. */
#if defined(_WIN32) && defined(TBC_DIGITS_MLP_SHARED)
__declspec(dllimport)
#endif
extern const tbc_model tbc_digits_mlp;

#define TBC_DIGITS_MLP_ARENA_SIZE 768
#define TBC_DIGITS_MLP_ARENA_ALIGN 64
#define TBC_DIGITS_MLP_STATE_SIZE 0
#define TBC_DIGITS_MLP_WEIGHTS_SIZE 9024
#define TBC_DIGITS_MLP_INPUTS 1
#define TBC_DIGITS_MLP_OUTPUTS 1

/* input 0, "x": float32[1,64] */
#define TBC_DIGITS_MLP_INPUT_X 0
#define TBC_DIGITS_MLP_INPUT_X_COUNT 64
#define TBC_DIGITS_MLP_INPUT_X_BYTES 256

/* output 0, "logits": float32[1,10] */
#define TBC_DIGITS_MLP_OUTPUT_LOGITS 0
#define TBC_DIGITS_MLP_OUTPUT_LOGITS_COUNT 10
#define TBC_DIGITS_MLP_OUTPUT_LOGITS_BYTES 40

#ifdef __cplusplus
}
#endif

#endif /* TBC_DIGITS_MLP_H */
