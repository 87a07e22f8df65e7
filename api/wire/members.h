/* members.h - the members that a document or a query may have: the rows of members.def. */
#ifndef API_MEMBERS_H
#define API_MEMBERS_H

#include <stddef.h>
#include <stdint.h>

#include "../../core/nn.h"

/* The kinds of values. In the __metadata__ of safetensors every value is a text: strings and choices stand there
 * without quotes, API_MODEL without quotes unless it begins with '{', and every other value as JSON. */
enum api_kind {
    API_TEXT,    /* a string */
    API_TEXTS,   /* a string; a query may have several, which are joined by commas */
    API_NAME,    /* a string that nn_name_valid takes */
    API_CHOICE,  /* a string that is one of `words`: the last kind that is a string */
    API_CHOICES, /* a list of some of `words` */
    API_FLAG,    /* true or false */
    API_INTEGER, /* from `least` to `most` */
    API_REAL,    /* a finite number from `least` to `most` */
    API_SWITCH,  /* true, false, or an object whose one member, named by `words`, is such a number */
    API_MODEL,   /* a model's name, or an object */
    API_VALUE,   /* any JSON; the code that uses it checks it */
    API_TENSORS  /* an object whose members are tensors */
};

struct api_member {
    const char *name;
    enum api_kind kind;
    double least, most;
    double
        absent; /* the value of a number or flag that is not given; of a switch, the number that "true" means */
    const char *words, *prose;
};

/* The rows of members.def, in their order. */
enum {
#define API_MEMBER(name, ...) API_MEMBER_OF_##name,
#include "members.def"
#undef API_MEMBER
    API_MEMBERS
};
extern const struct api_member api_members[API_MEMBERS];

/* The row of a name of `length` bytes, or NULL. */
const struct api_member *api_member_find(const char *name, size_t length);

#define API_MAX_SEED    ((INT64_C(1) << 53) - 1) /* each integer up to it is a double */
#define API_MAX_SAMPLES (INT64_C(1) << 40) /* of one contribution: the sum of 10,000 still fits 64 bits */
#define API_MAX_LR      NN_UNBOUNDED       /* as in the tables of optimizers */

#endif
