/*
 * Reads sentences, one a line, and prints for each whether it says something good or bad, and the
 * network's two scores. The model is compiled into the program: it opens no file and allocates
 * nothing. README.md says how to build it.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "sentiment.h"

enum { MOST_TOKENS = 64, MOST_LETTERS = 31, BAD = 0, GOOD = 1 };

/* The words that the network knows, in order; number 0 stands for all others. */
static const char *const words[] = {
#include "words.inc"
};
enum { WORDS = sizeof words / sizeof *words };

/* C99 has no way to align an array, so there is room to move its start. */
static unsigned char arena_room[TBC_SENTIMENT_ARENA_SIZE + TBC_SENTIMENT_ARENA_ALIGN];

static void *arena(void) {
    const uintptr_t past = (uintptr_t)arena_room % TBC_SENTIMENT_ARENA_ALIGN;
    return arena_room + (past ? TBC_SENTIMENT_ARENA_ALIGN - past : 0);
}

/* The number of a word, by bisection. */
static int64_t number_of(const char *word) {
    size_t low = 1, high = WORDS;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = strcmp(word, words[middle]);
        if (order == 0) return (int64_t)middle;
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return 0;
}

typedef struct sentence {
    int64_t tokens[MOST_TOKENS];
    size_t count;
} sentence;

static void add(sentence *line, const char *word) {
    if (line->count < MOST_TOKENS) line->tokens[line->count++] = number_of(word);
}

/*
 * Read a line as tokens: words of letters, with single apostrophes between them, and the marks ! and
 * ?. Returns 0 at the end of the input.
 */
static int read_sentence(sentence *line) {
    char word[MOST_LETTERS + 2];
    size_t letters = 0;
    int c = getchar(), last = 0;

    line->count = 0;
    if (c == EOF) return 0;
    for (;; last = c, c = getchar()) {
        if (c >= 'A' && c <= 'Z') c += 'a' - 'A';
        if ((c >= 'a' && c <= 'z') || (c == '\'' && last >= 'a' && last <= 'z')) {
            /* One letter too many stays, so that the start of a long word is no word. */
            if (letters <= MOST_LETTERS) word[letters++] = (char)c;
            continue;
        }
        if (letters != 0) {
            if (word[letters - 1] == '\'') letters--;
            word[letters] = '\0';
            add(line, word);
            letters = 0;
        }
        if (c == '!' || c == '?') add(line, c == '!' ? "!" : "?");
        if (c == '\n' || c == EOF) break;
    }
    if (line->count == 0) line->tokens[line->count++] = 0;
    return 1;
}

int main(void) {
    static sentence line;
    float scores[2] = {0.0f, 0.0f};
    size_t dims[1]; /* TBC_SENTIMENT_DIM_TOKENS is all that varies */
    const void *inputs[TBC_SENTIMENT_INPUTS];
    void *outputs[TBC_SENTIMENT_OUTPUTS];
    tbc_call call = {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL};
    int32_t status = tbc_check(&tbc_sentiment, tbc_cpu_bits());

    inputs[TBC_SENTIMENT_INPUT_TOKENS] = line.tokens;
    outputs[TBC_SENTIMENT_OUTPUT_SCORES] = scores;
    call.inputs = inputs;
    call.outputs = outputs;
    call.arena = arena();
    call.dims = dims;

    while (status == TBC_OK && read_sentence(&line)) {
        dims[TBC_SENTIMENT_DIM_TOKENS] = line.count;
        status = tbc_sentiment.run(&call);
        if (status == TBC_OK) {
            const char *const tone = scores[GOOD] > scores[BAD] ? "good" : "bad";
            printf("%s\t%.9g\t%.9g\n", tone, scores[BAD], scores[GOOD]);
        }
    }
    if (status != TBC_OK) {
        fprintf(stderr, "%s: %s\n", tbc_sentiment.name, tbc_status_text(status));
        return 1;
    }
    return 0;
}
