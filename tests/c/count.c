/* A plugin of qemu that counts the instructions a program executes, by function.
 *
 * `-plugin file=count.so,out=PATH` writes a line for each symbol: the count, a space and the name;
 * what lies outside of all symbols has an empty one. The functions of qemu's qemu-plugin.h, version
 * 1, are declared here, as few systems ship that header. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct qemu_info_t qemu_info_t;
enum { QEMU_PLUGIN_INLINE_ADD_U64 };

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *instruction);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id,
                                           void (*translated)(uint64_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *instruction, int operation,
                                                void *at, uint64_t value);
void qemu_plugin_register_atexit_cb(uint64_t id, void (*ended)(uint64_t, void *), void *data);

int qemu_plugin_version = 1;
int qemu_plugin_install(uint64_t id, const qemu_info_t *info, int argc, char **argv);

typedef struct Function {
    char *name;
    uint64_t count;
    struct Function *next;
} Function;

static Function *functions;
static char *path;

static Function *function_of(const char *name) {
    for (Function *each = functions; each; each = each->next)
        if (strcmp(each->name, name) == 0) return each;
    Function *const made = malloc(sizeof *made);
    *made = (Function){strdup(name), 0, functions};
    return functions = made;
}

static void translated(uint64_t id, struct qemu_plugin_tb *block) {
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        struct qemu_plugin_insn *const instruction = qemu_plugin_tb_get_insn(block, i);
        const char *const name = qemu_plugin_insn_symbol(instruction);
        qemu_plugin_register_vcpu_insn_exec_inline(instruction, QEMU_PLUGIN_INLINE_ADD_U64,
                                                   &function_of(name ? name : "")->count, 1);
    }
}

static void ended(uint64_t id, void *data) {
    (void)id, (void)data;
    FILE *const file = fopen(path, "w");
    if (!file) abort();
    for (const Function *each = functions; each; each = each->next)
        fprintf(file, "%" PRIu64 " %s\n", each->count, each->name);
    fclose(file);
}

int qemu_plugin_install(uint64_t id, const qemu_info_t *info, int argc, char **argv) {
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0) return 1;
    path = strdup(argv[0] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
