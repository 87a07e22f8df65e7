/* dictionary.c - prints a libFuzzer dictionary of the words that the tables hold: operators, losses, optimizers and
 * their attributes, choices and examples; types; members of documents; methods and paths. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../api/wire/tensor.h"

/* An entry: printable bytes as they are, but for the two that the format escapes. */
static void print_entry(const char *before, const char *text, const char *after) {
    const char *parts[] = {before, text, after};
    putchar('"');
    for (int i = 0; i < 3; i++)
        for (const char *c = parts[i]; *c; c++) {
            if (*c == '"' || *c == '\\') putchar('\\');
            putchar(*c);
        }
    puts("\"");
}

static void print_word(const char *word) { print_entry("\"", word, "\""); }
static void print_member(const char *word) { print_entry("\"", word, "\":"); }

/* Words that are separated by spaces, each a member of a document. */
static void print_members(const char *words) {
    while (*words) {
        char word[64];
        size_t size = strcspn(words, " ");
        snprintf(word, sizeof word, "%.*s", (int)size, words);
        if (size) print_member(word);
        words += size;
        words += strspn(words, " ");
    }
}

static void print_definition(const struct nn_def *def) {
    print_entry("{\"op\":\"", def->name, "\"}");
    print_entry("\"op\":\"", def->name, "\"");
    for (const struct nn_attr_def *attr = def->attrs; attr && attr->name; attr++) {
        print_member(attr->name);
        for (int i = 0; attr->choices && attr->choices[i]; i++) print_word(attr->choices[i]);
    }
    for (int i = 0; i < def->n_examples; i++)
        if (*def->examples[i].attrs) print_entry("", def->examples[i].attrs, "");
}

int main(void) {
    for (int i = 0; nn_op_def(i); i++) print_definition(nn_op_def(i));
    for (int i = 0; nn_optimizer_def(i); i++) print_definition(nn_optimizer_def(i));
    for (enum api_dtype dtype = API_F32; dtype < API_DTYPES; dtype++) print_word(api_dtype_name(dtype));
#define API_MEMBER(name, ...) print_member(#name);
#include "../../../api/wire/members.def"
#undef API_MEMBER
#define API_ROUTE(method, path, handler, body, effect, scope, recorded, cost, query, requires, members,      \
                  summary)                                                                                   \
    print_entry(method " ", path, "");                                                                       \
    print_members(members);
#include "../../../api/request/routes.def"
#undef API_ROUTE
    return fflush(stdout) == EOF ? EXIT_FAILURE : EXIT_SUCCESS;
}
