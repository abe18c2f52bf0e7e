/* Maps blobs: see tbc_blob.h. For systems with mmap. */
#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE 1 /* MAP_ANONYMOUS */
#define _DARWIN_C_SOURCE 1

#include "tbc_blob.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Map a whole file for reading. */
static int32_t map_file(const char *path, tbc_mapping *mapping) {
    struct stat about;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return TBC_ERROR_FILE;
    int32_t status = TBC_ERROR_FILE;
    if (fstat(file, &about) == 0 && about.st_size > 0 && (uint64_t)about.st_size <= SIZE_MAX) {
        mapping->length = (size_t)about.st_size;
        void *const blob = mmap(NULL, mapping->length, PROT_READ, MAP_PRIVATE, file, 0);
        if (blob != MAP_FAILED) {
            mapping->blob = blob;
            status = TBC_OK;
        }
    }
    (void)close(file);
    return status;
}

/* Let the code of an opened blob run, of which all is checked but that the file ends with it. */
static int32_t allow_code(const tbc_mapping *mapping) {
    const long page = sysconf(_SC_PAGESIZE);
    uint64_t length, code, size;
    const unsigned char *const header = (const unsigned char *)mapping->blob;
    memcpy(&length, header + 24, sizeof length);
    memcpy(&code, header + 40, sizeof code);
    memcpy(&size, header + 48, sizeof size);
    if (length != mapping->length) return TBC_ERROR_BLOB;
    if (page <= 0 || ((code | size) & ((uint64_t)page - 1)) != 0) {
        return TBC_ERROR_ALIGN;
    }
    unsigned char *const start = (unsigned char *)mapping->blob + code;
    return mprotect(start, (size_t)size, PROT_READ | PROT_EXEC) == 0 ? TBC_OK : TBC_ERROR_FILE;
}

static int32_t map(const char *path, uint64_t cpu_bits, tbc_mapping *mapping) {
    int32_t status = map_file(path, mapping);
    if (status != TBC_OK) return status;
    mapping->size = tbc_blob_bytes(mapping->blob, mapping->length);
    if (mapping->size == 0) mapping->size = 1; /* tbc_open says what is wrong */
    void *const memory = mmap(
        NULL, mapping->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return TBC_ERROR_MEMORY;
    mapping->memory = memory;
    status = tbc_open(
        mapping->blob, mapping->length, cpu_bits, memory, mapping->size, &mapping->model);
    if (status != TBC_OK) return status;
    if (mprotect(memory, mapping->size, PROT_READ) != 0) return TBC_ERROR_MEMORY;
    return allow_code(mapping);
}

int32_t tbc_map(const char *path, uint64_t cpu_bits, tbc_mapping *mapping) {
    static const tbc_mapping nothing = {NULL, NULL, 0, NULL, 0};
    if (path == NULL || mapping == NULL) return TBC_ERROR_NULL;
    *mapping = nothing;
    const int32_t status = map(path, cpu_bits, mapping);
    if (status != TBC_OK) tbc_close(mapping);
    return status;
}

void tbc_close(tbc_mapping *mapping) {
    static const tbc_mapping nothing = {NULL, NULL, 0, NULL, 0};
    if (mapping == NULL) return;
    if (mapping->memory != NULL) (void)munmap(mapping->memory, mapping->size);
    if (mapping->blob != NULL) (void)munmap(mapping->blob, mapping->length);
    *mapping = nothing;
}
