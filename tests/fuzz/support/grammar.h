/* grammar.h - bytes into documents that are mostly right: models of the tables' operators with the attributes of
 * their examples, and what can be asked of them. */
#ifndef FUZZ_GRAMMAR_H
#define FUZZ_GRAMMAR_H

#include "../../../api/wire/tensor.h"

struct fuzz_bytes {
    const uint8_t *p, *end;
};

/* The next byte, below `n`; 0 at the end, so that 0 is to be the plainest choice. */
unsigned fuzz_byte(struct fuzz_bytes *bytes, unsigned n);

/* What a model was made of. */
struct fuzz_model {
    const struct nn_def *def;
    const struct nn_example *example;
    bool ids;      /* the head's targets are */
    bool weighted; /* the head's loss, by sample weights "w" */
    bool own_loss; /* `def` is a loss */
};

/* A specification; `name` NULL: without one. */
void fuzz_specification(struct fuzz_bytes *bytes, const char *name, struct fuzz_model *model,
                        struct api_text *text);
/* A document with some of these members, separated by spaces, for a model that bears this name. */
void fuzz_document(struct fuzz_bytes *bytes, const char *members, const char *name, const char *context,
                   const struct fuzz_model *model, struct api_text *text);

#endif
