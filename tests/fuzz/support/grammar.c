/* grammar.c - see grammar.h. A model is its operator over inputs "x0", "x1", ...; then, where the operator yields
 * numbers, a head of two outputs "h"; a loss at the head with target "y". A loss is put at "x0", with target "t". */
#include "grammar.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define COUNT(table) ((unsigned)(sizeof(table) / sizeof(table)[0]))

unsigned fuzz_byte(struct fuzz_bytes *bytes, unsigned n) {
    return bytes->p < bytes->end && n ? *bytes->p++ % n : 0;
}

static const char *pick(struct fuzz_bytes *bytes, const char *const *texts, unsigned n) {
    return texts[fuzz_byte(bytes, n)];
}

static void add(struct api_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct api_text *text, const char *format, ...) {
    char part[512];
    va_list args;
    va_start(args, format);
    int size = vsnprintf(part, sizeof part, format, args);
    va_end(args);
    if (size > 0) api_text_add(text, part, (size_t)size < sizeof part ? (size_t)size : sizeof part - 1);
}

/* Now and then, something else than what belongs here. */
static bool add_odd(struct fuzz_bytes *bytes, struct api_text *text) {
    static const char *const odd[] = {"null", "-1",   "\"\"",  "[]",          "{}",
                                      "1e30", "true", "[[1]]", "\"\\u0001\"", "9223372036854775807"};
    if (fuzz_byte(bytes, 64) != 63) return false;
    api_text_puts(text, pick(bytes, odd, COUNT(odd)));
    return true;
}

/* --- specifications ---------------------------------------------------------------------------------- */

static void add_shape(struct api_text *text, const struct nn_shape *shape) {
    api_text_puts(text, "[");
    for (int i = 0; i < shape->rank; i++) add(text, "%s%lld", i ? "," : "", (long long)shape->dim[i]);
    api_text_puts(text, "]");
}

static void add_def(struct api_text *text, const struct nn_def *def, const char *attrs) {
    add(text, "\"op\":\"%s\"%s%s", def->name, *attrs ? "," : "", attrs);
}

static unsigned count_of(const struct nn_def *(*table)(int index)) {
    unsigned n = 0;
    while (table((int)n)) n++;
    return n;
}

static void add_inputs(struct fuzz_bytes *bytes, const struct fuzz_model *model, struct api_text *text) {
    api_text_puts(text, "\"inputs\":{");
    for (int i = 0; i < model->example->n_inputs; i++) {
        add(text, "%s\"x%d\":{\"shape\":", i ? "," : "", i);
        if (!add_odd(bytes, text)) add_shape(text, &model->example->inputs[i]);
        api_text_puts(text, model->example->ids && !model->own_loss ? ",\"dtype\":\"I64\"}" : "}");
    }
    api_text_puts(text, "}");
}

static void add_layers(struct fuzz_bytes *bytes, const struct fuzz_model *model, struct api_text *text) {
    static const char tied[] = "{\"op\":\"linear\",\"out_features\":2},{\"op\":\"linear\",\"name\":\"t\","
                               "\"out_features\":2,\"tied\":{\"weight\":\"h.weight\"}},";
    static const char *const between[] = {"",
                                          "{\"op\":\"relu\"},",
                                          "{\"op\":\"dropout\",\"p\":0.5},",
                                          "{\"op\":\"linear\",\"out_features\":3,\"trainable\":false},",
                                          "{\"op\":\"batch_norm\",\"name\":\"bn\"},",
                                          tied};
    api_text_puts(text, ",\"layers\":[{");
    if (model->own_loss) {
        api_text_puts(text, "\"op\":\"relu\",\"inputs\":[\"x0\"]");
    } else {
        add_def(text, model->def, model->example->attrs);
        api_text_puts(text, ",\"name\":\"op\",\"inputs\":[");
        for (int i = 0; i < model->example->n_inputs; i++) add(text, "%s\"x%d\"", i ? "," : "", i);
        api_text_puts(text, "]");
    }
    api_text_puts(text, "},{\"op\":\"flatten\"},");
    api_text_puts(text, pick(bytes, between, COUNT(between)));
    add(text, "{\"op\":\"linear\",\"out_features\":2,\"name\":\"%s\"}]",
        fuzz_byte(bytes, 32) == 31 ? "op" : "h");
}

static void add_loss(struct fuzz_bytes *bytes, struct fuzz_model *model, struct api_text *text) {
    static const char *const heads[] = {"", "\"reduction\":\"sum\",", "\"scale\":0.5,",
                                        "\"sample_weight\":\"w\","};
    unsigned head = fuzz_byte(bytes, COUNT(heads));
    model->ids = fuzz_byte(bytes, 2);
    model->weighted = head == COUNT(heads) - 1;
    add(text, ",\"loss\":[{%s\"op\":\"%s\"}", heads[head], model->ids ? "cross_entropy" : "mse");
    if (model->own_loss) {
        api_text_puts(text, ",{\"input\":\"x0\",\"target\":\"t\",");
        add_def(text, model->def, model->example->attrs);
        api_text_puts(text, "}");
    }
    api_text_puts(text, "]");
}

static void add_optimizer(struct fuzz_bytes *bytes, struct api_text *text) {
    const struct nn_def *def = nn_optimizer_def((int)fuzz_byte(bytes, count_of(nn_optimizer_def)));
    api_text_puts(text, "\"optimizer\":");
    if (add_odd(bytes, text)) return;
    unsigned example = fuzz_byte(bytes, (unsigned)def->n_examples);
    api_text_puts(text, "{");
    add_def(text, def, def->n_examples ? def->examples[example].attrs : "");
    api_text_puts(text, "}");
}

static void add_aggregation(struct fuzz_bytes *bytes, struct api_text *text) {
    static const char *const ways[] = {
        "{\"mode\":\"async\"}", "{\"mode\":\"sync\",\"workers\":2,\"timeout_ms\":1000}",
        "{\"mode\":\"sync\",\"workers\":3,\"quorum\":2,\"reduce\":\"sum\",\"timeout_ms\":50}",
        "{\"mode\":\"sync\",\"workers\":1}"};
    api_text_puts(text, "\"aggregation\":");
    if (!add_odd(bytes, text)) api_text_puts(text, pick(bytes, ways, COUNT(ways)));
}

void fuzz_specification(struct fuzz_bytes *bytes, const char *name, struct fuzz_model *model,
                        struct api_text *text) {
    do /* an operator without examples leaves its turn to the first */
        model->def = nn_op_def((int)fuzz_byte(bytes, count_of(nn_op_def)));
    while (!model->def->n_examples && bytes->p < bytes->end);
    if (!model->def->n_examples) model->def = nn_op_def(0);
    model->example = &model->def->examples[fuzz_byte(bytes, (unsigned)model->def->n_examples)];
    model->own_loss = model->def->flags & NN_IS_LOSS;
    api_text_puts(text, "{");
    if (name) add(text, "\"name\":\"%s\",\"seed\":1,", name);
    add_inputs(bytes, model, text);
    add_layers(bytes, model, text);
    add_loss(bytes, model, text);
    if (fuzz_byte(bytes, 8) != 7) {
        api_text_puts(text, ",");
        add_optimizer(bytes, text);
    }
    unsigned more = fuzz_byte(bytes, 8);
    if (more & 1) api_text_puts(text, ",\"dtype\":\"F64\"");
    if (more & 2) {
        api_text_puts(text, ",");
        add_aggregation(bytes, text);
    }
    if (name) {
        static const char *const stored[] = {",\"durability\":\"journal\"", "", ",\"durability\":\"none\"",
                                             ",\"coalesce\":true"};
        api_text_puts(text, pick(bytes, stored, COUNT(stored)));
    }
    if (more & 4) add(text, ",\"max_staleness\":1,\"outputs\":[\"h\",\"%s\"]", model->own_loss ? "h" : "op");
    api_text_puts(text, "}");
}

/* --- tensors ----------------------------------------------------------------------------------------- */

/* Elements in nested brackets: ids below `ids`, or numbers. */
static void add_array(struct fuzz_bytes *bytes, struct api_text *text, const struct nn_shape *shape,
                      int level, int64_t ids) {
    static const char *const numbers[] = {"0.5", "-1", "0", "2.25", "1e-3", "-3e2", "1e38"};
    if (level == shape->rank) {
        if (ids)
            add(text, "%u", fuzz_byte(bytes, (unsigned)ids));
        else
            api_text_puts(text, pick(bytes, numbers, COUNT(numbers)));
        return;
    }
    api_text_puts(text, "[");
    for (int64_t i = 0; i < shape->dim[level]; i++) {
        if (i) api_text_puts(text, ",");
        add_array(bytes, text, shape, level + 1, ids);
    }
    api_text_puts(text, "]");
}

static void add_tensor(struct fuzz_bytes *bytes, struct api_text *text, const char *name,
                       const struct nn_shape *shape, int64_t ids) {
    if (text->data[text->size - 1] != '{') api_text_puts(text, ",");
    add(text, "\"%s\":", name);
    if (!add_odd(bytes, text)) add_array(bytes, text, shape, 0, ids);
}

static void add_input_tensors(struct fuzz_bytes *bytes, const struct fuzz_model *model, int64_t rows,
                              struct api_text *text) {
    for (int i = 0; i < model->example->n_inputs; i++) {
        char name[16];
        struct nn_shape shape = nn_shape_batch(rows, &model->example->inputs[i]);
        snprintf(name, sizeof name, "x%d", i);
        add_tensor(bytes, text, name, &shape,
                   model->example->ids && !model->own_loss ? model->example->classes : 0);
    }
}

static void add_targets(struct fuzz_bytes *bytes, const struct fuzz_model *model, int64_t rows,
                        struct api_text *text) {
    const struct nn_shape head = {2, {rows, 2}}, one = {1, {rows}};
    add_tensor(bytes, text, "y", model->ids ? &one : &head, model->ids ? 2 : 0);
    if (model->weighted) add_tensor(bytes, text, "w", &one, 0);
    if (!model->own_loss) return;
    struct nn_shape shape = nn_shape_batch(rows, &model->example->inputs[0]);
    if (model->example->ids) { /* the class is chosen along the first dimension of a sample */
        for (int i = 2; i < shape.rank; i++) shape.dim[i - 1] = shape.dim[i];
        shape.rank--;
    }
    add_tensor(bytes, text, "t", &shape, model->example->ids ? model->example->classes : 0);
}

/* The head's, which every model has, though how many inputs it has depends on the operator. */
static void add_parameters(struct fuzz_bytes *bytes, struct api_text *text) {
    const struct nn_shape bias = {1, {2}}, weight = {2, {2, 1 + (int64_t)fuzz_byte(bytes, 4)}};
    add_tensor(bytes, text, "h.bias", &bias, 0);
    if (fuzz_byte(bytes, 2)) add_tensor(bytes, text, "h.weight", &weight, 0);
}

/* Of a batch_norm, as the operator or between: of as many channels as its input has, or of another number. */
static void add_statistics(struct fuzz_bytes *bytes, const struct fuzz_model *model, struct api_text *text) {
    static const char *const suffixes[] = {"running_mean", "running_var", "num_batches_tracked"};
    const bool own = strcmp(model->def->name, "batch_norm") == 0;
    const struct nn_shape channels = {1, {own ? model->example->inputs[0].dim[0] : 1 + fuzz_byte(bytes, 6)}},
                          one = {0};
    for (unsigned i = 0; i < COUNT(suffixes); i++) {
        char name[40];
        snprintf(name, sizeof name, "%s.%s", own ? "op" : "bn", suffixes[i]);
        if (fuzz_byte(bytes, 16) != 15)
            add_tensor(bytes, text, name, i == 2 ? &one : &channels, i == 2 ? 4 : 0);
    }
}

static void add_map(struct fuzz_bytes *bytes, const char *member, const struct fuzz_model *model,
                    int64_t rows, struct api_text *text) {
    const struct nn_shape head = {2, {rows, 2}};
    api_text_puts(text, "{");
    if (strcmp(member, "inputs") == 0)
        add_input_tensors(bytes, model, rows, text);
    else if (strcmp(member, "targets") == 0)
        add_targets(bytes, model, rows, text);
    else if (strcmp(member, "buffers") == 0)
        add_statistics(bytes, model, text);
    else if (strcmp(member, "upstream") == 0)
        add_tensor(bytes, text, "h", &head, 0);
    else
        add_parameters(bytes, text);
    api_text_puts(text, "}");
}

/* --- documents --------------------------------------------------------------------------------------- */

static const char *const maps = " inputs targets upstream parameters gradients buffers state ";

/* Values of members that are neither a map of tensors nor of the grammar above; those of one number or word. */
static const struct {
    const char *member;
    const char *values[6];
} plain[] = {
    {"mode", {"\"train\"", "\"eval\""}},
    {"dtype", {"\"F32\"", "\"F16\"", "\"BF16\"", "\"F64\"", "\"I64\""}},
    {"return", {"[\"parameters\"]", "[\"inputs/x0\"]", "[]", "[\"h\"]", "[\"parameters\",\"inputs\"]"}},
    {"outputs", {"[\"h\"]", "[\"op\",\"h\"]", "[]", "[\"x0\"]"}},
    {"losses", {"[0]", "[\"0\"]", "[]", "{}"}},
    {"worker", {"\"a\"", "\"b\"", "\"c\""}},
    {"apply", {"true", "false"}},
    {"accumulate", {"true", "false"}},
    {"retain", {"true", "false"}},
    {"partial", {"true", "false"}},
    {"mean", {"true", "false"}},
    {"from", {"\"m\"", "\"n\""}},
    {"op", {"\"sgd\"", "\"adam\""}},
    {"incarnation", /* the first ones that a service with a store draws */
     {"\"0000000000000001\"", "\"0000000000000003\"", "\"0000000000000005\""}},
    {"wait", {"\"durable\""}},
    {"durability", {"\"journal\"", "\"snapshot\"", "\"none\""}},
    {"coalesce", {"true", "false"}},
    {"tau", {"0.5", "1", "0"}},
    {"lr", {"0.1", "1e30", "0"}},
    {"normalizer", {"1", "[1]", "0.5"}},
    {"normalizers", {"[1]", "{}", "[1,2]"}}};

static void add_value(struct fuzz_bytes *bytes, const char *member, const char *name, const char *context,
                      const struct fuzz_model *model, int64_t rows, struct api_text *text) {
    char key[40];
    struct fuzz_model ignored;
    if (add_odd(bytes, text)) return;
    snprintf(key, sizeof key, " %s ", member);
    if (strstr(maps, key)) {
        add_map(bytes, member, model, rows, text);
        return;
    }
    for (unsigned i = 0; i < COUNT(plain); i++) {
        unsigned n = 0;
        while (n < COUNT(plain[i].values) && plain[i].values[n]) n++;
        if (strcmp(plain[i].member, member) != 0) continue;
        api_text_puts(text, pick(bytes, plain[i].values, n));
        return;
    }
    if (strcmp(member, "context") == 0)
        add(text, "\"%s\"", context);
    else if (strcmp(member, "model") != 0)
        add(text, "%u", fuzz_byte(bytes, 4));
    else if (fuzz_byte(bytes, 8) != 7)
        add(text, "\"%s\"", name);
    else
        fuzz_specification(bytes, NULL, &ignored, text);
}

/* Whether a member is among those of a document: what most requests of its kind need, what some do, or the rest. */
static bool is_there(struct fuzz_bytes *bytes, const char *member, bool of_context) {
    char key[40];
    snprintf(key, sizeof key, " %s ", member);
    unsigned i = fuzz_byte(bytes, 24);
    if (strcmp(member, "context") == 0) return of_context != (i == 23);
    if (of_context && strstr(" model inputs ", key)) return i == 23;
    if (strstr(" model inputs targets gradients from incarnation version ", key)) return i != 23;
    if (strstr(" apply worker optimizer aggregation ", key)) return i > 11;
    return i > 21;
}

void fuzz_document(struct fuzz_bytes *bytes, const char *members, const char *name, const char *context,
                   const struct fuzz_model *model, struct api_text *text) {
    int64_t rows = 1 + (int64_t)fuzz_byte(bytes, 3);
    bool first = true, of_context = *context && fuzz_byte(bytes, 4) == 3;
    api_text_puts(text, "{");
    while (*members) {
        char member[32];
        size_t size = strcspn(members, " ");
        snprintf(member, sizeof member, "%.*s", (int)size, members);
        members += size;
        members += strspn(members, " ");
        if (!is_there(bytes, member, of_context)) continue;
        add(text, "%s\"%s\":", first ? "" : ",", member);
        first = false;
        if (strcmp(member, "optimizer") == 0 || strcmp(member, "aggregation") == 0) {
            text->size -= strlen(member) + 3; /* they write their names */
            (member[0] == 'o' ? add_optimizer : add_aggregation)(bytes, text);
        } else {
            add_value(bytes, member, name, context, model, rows, text);
        }
    }
    api_text_puts(text, "}");
}
