/*
 * tbc_blob.h - models as single files (.tbc): in memory, in flash, or mapped. Optional.
 *
 * tbc_blob.c needs nothing but this; a model runs where the blob lies, and nothing is copied:
 *
 *     extern const unsigned char net[];               // aligned as the blob asks, say to 64
 *     static uint64_t memory[(TBC_BLOB_BYTES(2, 0) + 7) / 8]; // 2 tensors, no symbols
 *     const tbc_model *model;
 *     int32_t status = tbc_open(net, net_size, tbc_cpu_bits(), memory, sizeof memory, &model);
 *     if (status == TBC_OK) status = model->run(&call);
 *
 * tbc_map.c maps a file, for systems with mmap:
 *
 *     tbc_mapping mapping;
 *     int32_t status = tbc_map("net.tbc", tbc_cpu_bits(), &mapping);
 *     if (status == TBC_OK) status = mapping.model->run(&call);
 *     tbc_close(&mapping);
 *
 * Whatever the file holds, it is checked before it is used: a blob that is damaged, of another kind
 * of machine or of another TBC_ABI is refused. That is no protection against a blob made to do
 * harm: its code runs.
 */
#ifndef TBC_BLOB_H
#define TBC_BLOB_H

#include "tbc.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The bytes of memory that a blob with so many inputs and outputs together, and symbols, needs. */
#define TBC_BLOB_BYTES(tensors, symbols) \
    (sizeof(tbc_model) + (tensors) * sizeof(tbc_tensor) + (symbols) * sizeof(tbc_symbol))

/* The same, of what a blob's header says; 0 if that is not one of a blob for this machine. */
size_t tbc_blob_bytes(const void *blob, size_t length);

/*
 * The model in a blob of at most `length` bytes, checked from its first to its last. It lies in
 * `memory` (`size` bytes, aligned as a pointer), and that and the blob must stay where they are as
 * long as it is used. The blob must lie in memory that the processor may run code from.
 *
 * TBC_OK, or TBC_ERROR_BLOB, TBC_ERROR_ABI, TBC_ERROR_CPU, TBC_ERROR_NULL, TBC_ERROR_ALIGN,
 * TBC_ERROR_MEMORY.
 */
int32_t tbc_open(
    const void *blob, size_t length, uint64_t cpu_bits, void *memory, size_t size,
    const tbc_model **model);

/* A mapped blob: its code may run and not be written, the rest may only be read. */
typedef struct tbc_mapping {
    const tbc_model *model;
    void *blob;
    size_t length;
    void *memory;
    size_t size;
} tbc_mapping;

/*
 * Map a file. The status is one of tbc_open's, or TBC_ERROR_FILE; with any but TBC_OK nothing stays
 * mapped. Nobody may write to the file as long as it is mapped; replacing it is fine.
 */
int32_t tbc_map(const char *path, uint64_t cpu_bits, tbc_mapping *mapping);

/* Undo a tbc_map; does nothing after one that failed. */
void tbc_close(tbc_mapping *mapping);

#ifdef __cplusplus
}
#endif

#endif /* TBC_BLOB_H */
