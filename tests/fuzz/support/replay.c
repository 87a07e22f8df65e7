/* replay.c - the main of a fuzzer that is built without libFuzzer: gives it all that its corpus holds, and each
 * input that once broke it. A crash shows the input's name as the last line.
 *
 *   fuzzer             tests/fuzz/corpus/NAME and tests/fuzz/crashers/NAME, NAME being the program's own
 *   fuzzer FILE...     these */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../api/wire/tensor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One file's bytes, in a block of just their size. */
static void replay(const char *path) {
    struct api_text text = {0};
    char part[4096];
    size_t n;
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(EXIT_FAILURE);
    }
    while ((n = fread(part, 1, sizeof part, file))) api_text_add(&text, part, n);
    fclose(file);
    void *exact = malloc(text.size ? text.size : 1);
    if (!exact || text.failed) abort();
    if (text.size) memcpy(exact, text.data, text.size);
    LLVMFuzzerTestOneInput(exact, text.size);
    free(exact);
    api_text_free(&text);
}

static int is_input(const struct dirent *entry) { return entry->d_name[0] != '.'; }

/* All files of a folder, in the order of their names; `each` makes a test of every one. Returns the number of
 * tests; a folder that is not there has none. */
static int replay_folder(const char *kind, const char *name, bool each) {
    char path[1024];
    struct dirent **entries;
    snprintf(path, sizeof path, "tests/fuzz/%s/%s", kind, name);
    int n = scandir(path, &entries, is_input, alphasort), tests = 0;
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "tests/fuzz/%s/%s/%s", kind, name, entries[i]->d_name);
        printf("# %s\n", path);
        fflush(stdout);
        replay(path);
        if (each) printf("ok - %s %s: %s\n", name, kind, entries[i]->d_name), tests++;
        free(entries[i]);
    }
    if (n < 0) return 0;
    free(entries);
    if (!each && n) printf("ok - %s %s: %d inputs\n", name, kind, n), tests++;
    return tests;
}

int main(int argc, char **argv) {
    const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
    for (int i = 1; i < argc; i++) replay(argv[i]);
    if (argc > 1) return EXIT_SUCCESS;
    int tests = replay_folder("corpus", name, false);
    printf("1..%d\n", tests + replay_folder("crashers", name, true));
    return EXIT_SUCCESS;
}
