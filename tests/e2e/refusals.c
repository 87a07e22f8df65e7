/* Bad documents of every kind: each gets its problem, with the pointer to what is wrong, and changes
 * nothing. See broken_files.c for safetensors, and bad_peers.c for what is wrong beneath the document. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../support/e2e.h"

/* m: a classifier; e: ids; r: two inputs and a loss with weights; plain: neither loss nor optimizer. */
static const char *const models[] = {
    "{'name': 'm', 'seed': 1, 'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'linear', "
    "'out_features': 2, 'name': 'out'}], 'loss': {'op': 'cross_entropy'}, 'optimizer': {'op': 'sgd', 'lr': "
    "1}}",
    "{'name': 'e', 'seed': 1, 'inputs': {'ids': {'shape': [2], 'dtype': 'I64'}}, 'layers': [{'op': "
    "'embedding', 'num_embeddings': 5, 'embedding_dim': 2}, {'op': 'flatten'}], 'loss': {'op': 'mse'}}",
    "{'name': 'r', 'seed': 1, 'inputs': {'a': {'shape': [2]}, 'b': {'shape': [2]}}, 'layers': [{'op': 'add', "
    "'inputs': ['a', 'b']}, {'op': 'linear', 'out_features': 1}], 'loss': {'op': 'mse', 'target': 't', "
    "'sample_weight': 'w'}}",
    "{'name': 'plain', 'seed': 1, 'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'linear', "
    "'out_features': 2}]}",
};

static int setup(void **state) {
    service_setup(state);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) ask(201, "POST", "/models", "%s", models[i]);
    return 0;
}

struct refusal {
    const char *method, *path, *body;
    int status;
    const char *slug, *pointer; /* NULL: any */
};

static void check_all(const struct refusal *cases, size_t n) {
    json_t *before = json_deep_copy(ask(200, "GET", "/models", NULL));
    for (size_t i = 0; i < n; i++) {
        const struct refusal *c = &cases[i];
        const char *body = quoted(c->body);
        struct http_request request = {
            .method = c->method, .path = c->path, .type = JSON_TYPE, .body = body, .size = strlen(body)};
        struct http_answer *answer = service_keep(calloc(1, sizeof *answer));
        http_call(client, &request, answer);
        if (answer->status != c->status) fprintf(stderr, "%s %s %s\n", c->method, c->path, body);
        check_problem(answer, c->status, c->slug, c->pointer);
        http_answer_fini(answer);
        service_is_alive();
    }
    same_json(ask(200, "GET", "/models", NULL), before);
    json_decref(before);
}
#define CHECK(cases) check_all(cases, sizeof(cases) / sizeof(cases)[0])

/* --- what does not parse ----------------------------------------------------------------------------- */

#define X(array) "{'model': 'm', 'inputs': {'x': " array "}}"
#define FORWARD(body, status, slug, pointer)                                                                 \
    { "POST", "/forward", body, status, slug, pointer }
#define MALFORMED(body) FORWARD(body, 400, "malformed", NULL)

static void not_json(void **state) {
    (void)state;
    static const struct refusal cases[] = {
        MALFORMED(""),
        MALFORMED(" "),
        MALFORMED("{"),
        MALFORMED("}"),
        MALFORMED("nothing"),
        MALFORMED("[]"),
        MALFORMED("1"),
        MALFORMED("{'model': 'm'} x"),
        MALFORMED("{'model': 'm'}{}"),
        MALFORMED("{'model': 'm',}"),
        MALFORMED("{'model' 'm'}"),
        MALFORMED("{model: 'm'}"),
        MALFORMED("{'model': 'm"),
        MALFORMED("{'model': '\\x'}"),
        MALFORMED("{'model': '\\ud800'}"),
        MALFORMED("{'model': '\xff'}"),
        MALFORMED("{'mod\xc0\x80': 'm'}"),
        MALFORMED("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}"),
        MALFORMED("{'model': 'm', 'inputs': {'x': [[1, 2, 3"),
        MALFORMED("{'model': 'm', 'inputs': {'x': [[1, 2, 3]"),
        MALFORMED("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]], 'y': 1}}"),
        MALFORMED("{'model': 'm', 'inputs': {'x': [[1 2 3]]}}"),
        MALFORMED("{'model': 'm', 'inputs': {'x': [[1, 2, 3],]}}"),
        MALFORMED("{'model': 'm', 'inputs': {'x': [[1, 2, 3]], }}"),
        /* duplicate keys, wherever they are, however they are written */
        MALFORMED("{'model': 'm', 'model': 'm', 'inputs': {'x': [[1, 2, 3]]}}"),
        MALFORMED("{'model': 'm', 'mod\\u0065l': 'm', 'inputs': {'x': [[1, 2, 3]]}}"),
        MALFORMED("{'model': 'm', 'inputs': {'x': [[1, 2, 3]], 'x': [[1, 2, 3]]}}"),
        MALFORMED("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'inputs': {'x': [[1, 2, 3]]}}"),
        {"POST", "/models", "{'name': 'n', 'inputs': {'x': {'shape': [1], 'shape': [1]}}}", 400, "malformed",
         NULL},
        {"POST", "/models", "{'name': 'n', 'layers': [{'op': 'relu', 'op': 'relu'}]}", 400, "malformed",
         NULL},
        {"PATCH", "/models/m", "{'optimizer': {'lr': 1, 'lr': 2}}", 400, "malformed", NULL},
        {"PATCH", "/models/m", "", 400, "malformed", NULL},
        {"PUT", "/models/m/parameters", "[1]", 400, "malformed", NULL},
        {"POST", "/step", "{'model': 'm'", 400, "malformed", NULL},
    };
    CHECK(cases);
}

static void numbers(void **state) {
    (void)state;
    static const struct refusal cases[] = {
        MALFORMED(X("[[1, 2, NaN]]")),
        MALFORMED(X("[[1, 2, Infinity]]")),
        MALFORMED(X("[[1, 2, -Infinity]]")),
        MALFORMED(X("[[1, 2, nan]]")),
        MALFORMED(X("[[1, 2, inf]]")),
        MALFORMED(X("[[1, 2, 01]]")),
        MALFORMED(X("[[1, 2, +1]]")),
        MALFORMED(X("[[1, 2, .5]]")),
        MALFORMED(X("[[1, 2, 5.]]")),
        MALFORMED(X("[[1, 2, 0x1]]")),
        MALFORMED(X("[[1, 2, 1e]]")),
        MALFORMED(X("[[1, 2, 1e+]]")),
        MALFORMED(X("[[1, 2, --1]]")),
        MALFORMED(X("[[1, 2, -]]")),
        MALFORMED(X("[[1, 2, 1f]]")),
        MALFORMED(X("[[1, 2, 1_0]]")),
        MALFORMED(X("[[1, 2, -01]]")),
        MALFORMED(X("[[1, 2, 1.e3]]")),
        MALFORMED(X("[[1, 2, True]]")),
        MALFORMED(X("[[1, 2, 1,]]")),
        MALFORMED(X("[[1,, 2, 3]]")),
        FORWARD(X("[[1, 2, 'NaN']]"), 422, "not-finite", "/inputs/x"),
        FORWARD(X("[[1, 2, '-Infinity']]"), 422, "not-finite", "/inputs/x"),
        FORWARD(X("[[1, 2, 1e39]]"), 422, "invalid-value", "/inputs/x"),
        FORWARD(X("[[1, 2, 1e999]]"), 422, "invalid-value", "/inputs/x"),
        FORWARD(X("[[1, 2, 'x']]"), 422, "invalid-value", "/inputs/x"),
        FORWARD(X("[[1, 2, null]]"), 422, "invalid-value", "/inputs/x"),
        FORWARD(X("[[1, 2, {}]]"), 422, "invalid-value", "/inputs/x"),
        /* outside of tensors */
        MALFORMED("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'seed': 01}"),
        MALFORMED("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'seed': +1}"),
        MALFORMED("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'seed': NaN}"),
        MALFORMED("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'seed': 0x1}"),
        {"PATCH", "/models/m", "{'optimizer': {'lr': .5}}", 400, "malformed", NULL},
        {"PATCH", "/models/m", "{'optimizer': {'lr': Infinity}}", 400, "malformed", NULL},
        {"PATCH", "/models/m", "{'optimizer': {'lr': 1e999}}", 422, "invalid-value", NULL},
    };
    CHECK(cases);
}

/* --- what parses but is wrong ------------------------------------------------------------------------ */

static void members(void **state) {
    (void)state;
    static const struct refusal cases[] = {
        FORWARD("{}", 422, "invalid-value", "/model"),
        FORWARD("{'model': 1}", 422, "invalid-value", "/model"),
        FORWARD("{'model': 'm'}", 422, "invalid-value", "/inputs"),
        FORWARD("{'model': 'm', 'inputs': {}}", 422, "invalid-value", "/inputs"),
        FORWARD("{'model': 'm', 'inputs': [1]}", 422, "invalid-value", "/inputs"),
        FORWARD("{'model': 'm', 'inputs': {'x': 1}}", 422, "shape-mismatch", "/inputs/x"),
        FORWARD("{'model': 'm', 'inputs': {'x': true}}", 422, "invalid-value", "/inputs/x"),
        FORWARD("{'model': 'm', 'inputs': {'x': 'text'}}", 422, "invalid-value", "/inputs/x"),
        FORWARD("{'model': 'm', 'inputs': {'x': null}}", 422, "invalid-value", "/inputs/x"),
        FORWARD("{'model': 'm', 'input': {'x': [[1, 2, 3]]}}", 422, "unknown-member", "/input"),
        FORWARD("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'targets': {'y': [1]}}", 422, "unknown-member",
                "/targets"),
        FORWARD("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'a/b~c': 1}", 422, "unknown-member",
                "/a~1b~0c"),
        FORWARD("{'model': 'm', 'inputs': {'z': [[1, 2, 3]]}}", 422, "unknown-name", "/inputs/z"),
        FORWARD("{'model': 'm', 'inputs': {'out': [[1, 2]]}}", 422, "unknown-name", "/inputs/out"),
        FORWARD("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'outputs': ['none']}", 422, "unknown-name",
                "/outputs"),
        FORWARD("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'outputs': 'out'}", 422, "invalid-value",
                "/outputs"),
        FORWARD("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'outputs': [1]}", 422, "invalid-value",
                "/outputs"),
        FORWARD("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'mode': 'test'}", 422, "invalid-value",
                "/mode"),
        FORWARD("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'mode': 1}", 422, "invalid-value", "/mode"),
        FORWARD("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'seed': -1}", 422, "invalid-value", "/seed"),
        FORWARD("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'seed': 1.5}", 422, "invalid-value", "/seed"),
        FORWARD("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'seed': 9007199254740992}", 422,
                "invalid-value", "/seed"),
        FORWARD("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'first_row': -1}", 422, "invalid-value",
                "/first_row"),
        FORWARD("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'retain': 1}", 422, "invalid-value", "/retain"),
        FORWARD("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'dtype': 'F8'}", 422, "invalid-value",
                "/dtype"),
        FORWARD("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'dtype': 'I64'}", 422, "invalid-value",
                "/dtype"),
        FORWARD("{'model': 'm', 'inputs': {'x': [[1, 2, 3]]}, 'parameters': {}}", 422, "invalid-value",
                "/parameters"),
        FORWARD("{'model': 'r', 'inputs': {'a': [[1, 2]]}}", 422, "invalid-value", "/inputs/b"),
        {"POST", "/step", "{}", 422, "invalid-value", "/model"},
        {"POST", "/step", "{'model': 'm', 'lr': -1}", 422, "invalid-value", "/lr"},
        {"POST", "/step", "{'model': 'm', 'lr': '1'}", 422, "invalid-value", "/lr"},
        {"POST", "/step", "{'model': 'm', 'mean': 1}", 422, "invalid-value", "/mean"},
        {"POST", "/step", "{'model': 'm', 'scale': 1}", 422, "unknown-member", "/scale"},
        {"POST", "/step", "{'model': 'plain'}", 409, "no-optimizer", NULL},
        {"POST", "/step", "{'model': 'm'}", 409, "nothing-accumulated", NULL},
        {"PATCH", "/models/m", "{'name': 'n'}", 422, "unknown-member", "/name"},
        {"PATCH", "/models/m", "{'optimizer': 1}", 422, "invalid-value", "/optimizer"},
        {"PATCH", "/models/m", "{'optimizer': {'op': 'none'}}", 422, "unknown-name", "/optimizer/op"},
        {"PATCH", "/models/m", "{'optimizer': {'lr': -1}}", 422, "invalid-value", "/optimizer/lr"},
        {"PATCH", "/models/m", "{'optimizer': {'lr': 'x'}}", 422, "invalid-value", "/optimizer/lr"},
        {"PATCH", "/models/m", "{'optimizer': {'betas': [1, 2]}}", 422, "unknown-member", "/optimizer/betas"},
        {"PATCH", "/models/plain", "{'optimizer': {'lr': 1}}", 422, "invalid-value", "/optimizer/op"},
        {"GET", "/models/m/parameters?dtype=F8", "", 422, "invalid-value", NULL},
        {"GET", "/models/m/parameters?names=x", "", 422, "unknown-name", NULL},
        {"GET", "/models/m/parameters?name=x", "", 422, "unknown-member", NULL},
        {"GET", "/models?limit=1", "", 422, "unknown-member", NULL},
        {"PUT", "/models/m/parameters?partial=maybe", "{'parameters': {}}", 422, "invalid-value", NULL},
        {"PUT", "/models/m/parameters", "{}", 422, "invalid-value", "/parameters"},
        {"PUT", "/models/m/parameters", "{'parameters': {}}", 422, "invalid-value", NULL},
        {"PUT", "/models/m/parameters", "{'parameters': {'out.weight': [[1, 2, 3], [4, 5, 6]]}}", 422,
         "invalid-value", "/parameters/out.bias"},
        {"PUT", "/models/m/parameters?partial=true", "{'parameters': {'out.gain': [1, 2]}}", 422,
         "unknown-name", "/parameters/out.gain"},
        {"PUT", "/models/m/parameters?partial=true", "{'parameters': {'out.bias': [1, 2, 3]}}", 422,
         "shape-mismatch", "/parameters/out.bias"},
        {"PUT", "/models/m/parameters?partial=true", "{'parameters': {'out.bias': [1, 1e39]}}", 422,
         "invalid-value", "/parameters/out.bias"},
        {"PUT", "/models/m/optimizer", "{'state': {}}", 422, "invalid-value", "/steps"},
        {"PUT", "/models/m/optimizer", "{'steps': -1, 'state': {}}", 422, "invalid-value", "/steps"},
        {"PUT", "/models/m/optimizer", "{'op': 'adam', 'steps': 1, 'state': {}}", 422, "invalid-value",
         "/op"},
        {"PUT", "/models/m/optimizer", "{'steps': 1, 'state': {'exp_avg.out.bias': [1, 2]}}", 422,
         "unknown-name", NULL},
        {"GET", "/models/plain/optimizer", "", 409, "no-optimizer", NULL},
        {"PUT", "/models/plain/optimizer", "{'steps': 1, 'state': {}}", 409, "no-optimizer", NULL},
    };
    CHECK(cases);
}

static void shapes(void **state) {
    (void)state;
    static const struct refusal cases[] = {
        FORWARD(X("[[1, 2]]"), 422, "shape-mismatch", "/inputs/x"),
        FORWARD(X("[[1, 2, 3, 4]]"), 422, "shape-mismatch", "/inputs/x"),
        FORWARD(X("[1, 2, 3]"), 422, "shape-mismatch", "/inputs/x"),
        FORWARD(X("[[[1, 2, 3]]]"), 422, "shape-mismatch", "/inputs/x"),
        FORWARD(X("[]"), 422, "shape-mismatch", "/inputs/x"),
        FORWARD(X("[[]]"), 422, "shape-mismatch", "/inputs/x"),
        FORWARD(X("[[1, 2, 3], [1, 2]]"), 422, "shape-mismatch", "/inputs/x"),
        FORWARD(X("[[1, 2, 3], [1, 2, 3, 4]]"), 422, "shape-mismatch", "/inputs/x"),
        FORWARD(X("[[1, 2, 3], 4]"), 422, "shape-mismatch", "/inputs/x"),
        FORWARD(X("[[1, 2, 3], []]"), 422, "shape-mismatch", "/inputs/x"),
        FORWARD(X("[[1, 2, [3]]]"), 422, "shape-mismatch", "/inputs/x"),
        FORWARD(X("[[[[[[[[[1]]]]]]]]]"), 422, "shape-mismatch", "/inputs/x"),
        FORWARD("{'model': 'r', 'inputs': {'a': [[1, 2]], 'b': [[1, 2], [3, 4]]}}", 422, "shape-mismatch",
                "/inputs/b"),
    };
    CHECK(cases);
    const json_t *problem =
        refused(422, "shape-mismatch", "/inputs/x", "POST", "/forward", X("[[1, 2], [3, 4]]"));
    same_json(at(problem, "expected"), service_json("[null, 3]"));
    same_json(at(problem, "actual"), service_json("[2, 2]"));
}

#define BASE64(dtype, shape, text) X("{'dtype': '" dtype "', 'shape': " shape ", 'base64': '" text "'}")
#define ONES                       "AACAPwAAgD8AAIA/" /* three times 1.0f */

static void base64(void **state) {
    (void)state;
    static const struct refusal cases[] = {
        FORWARD(BASE64("F32", "[1, 3]", "AACAPwAAgD8AAIA"), 422, "invalid-value", "/inputs/x"),
        FORWARD(BASE64("F32", "[1, 3]", "AACAPwAAgD8AAI=="), 422, "invalid-value", "/inputs/x"),
        FORWARD(BASE64("F32", "[1, 3]", "AACAPwAAgD8AAIA!"), 422, "invalid-value", "/inputs/x"),
        FORWARD(BASE64("F32", "[1, 3]", "AACAPwAAgD8AAIA_"), 422, "invalid-value", "/inputs/x"),
        FORWARD(BASE64("F32", "[1, 3]", ONES "AACAPw=="), 422, "invalid-value", "/inputs/x"),
        FORWARD(BASE64("F32", "[1, 3]", ""), 422, "invalid-value", "/inputs/x"),
        FORWARD(BASE64("F32", "[1, 3]", "AACAPwAA\\nD8AAIA/"), 422, "invalid-value", "/inputs/x"),
        FORWARD(BASE64("F32", "[1, 3]", "AADAfwAAgD8AAIA/"), 422, "not-finite", "/inputs/x"),
        FORWARD(BASE64("F32", "[1, 3]", "AACAfwAAgD8AAIA/"), 422, "not-finite", "/inputs/x"),
        FORWARD(BASE64("F32", "[3]", ONES), 422, "shape-mismatch", "/inputs/x"),
        FORWARD(BASE64("F32", "[1, -3]", ONES), 422, "invalid-value", "/inputs/x"),
        FORWARD(BASE64("F32", "[1, 3.0]", ONES), 422, "invalid-value", "/inputs/x"),
        FORWARD(BASE64("F32", "[1000000000, 1000000000]", ONES), 422, "size-overflow", "/inputs/x"),
        FORWARD(BASE64("F32", "[4294967296, 4294967296]", ONES), 422, "size-overflow", "/inputs/x"),
        FORWARD(BASE64("F8", "[1, 3]", ONES), 422, "dtype-mismatch", "/inputs/x"),
        FORWARD(BASE64("f32", "[1, 3]", ONES), 422, "dtype-mismatch", "/inputs/x"),
        FORWARD(X("{'dtype': 'F32', 'shape': [1, 3]}"), 422, "invalid-value", "/inputs/x"),
        FORWARD(X("{'dtype': 'F32', 'base64': '" ONES "'}"), 422, "invalid-value", "/inputs/x"),
        FORWARD(X("{'dtype': 'F32', 'shape': [1, 3], 'base64': '" ONES "', 'more': 1}"), 422, "invalid-value",
                "/inputs/x"),
        FORWARD(X("{}"), 422, "invalid-value", "/inputs/x"),
    };
    CHECK(cases);
    ask(200, "POST", "/forward", BASE64("F32", "[1, 3]", ONES));
}

#define BACKWARD(rest, status, slug, pointer)                                                                \
    {                                                                                                        \
        "POST", "/backward", "{'model': 'm', 'inputs': {'x': [[1, 2, 3], [3, 2, 1]]}" rest "}", status,      \
            slug, pointer                                                                                    \
    }
#define R(rest, status, slug, pointer)                                                                       \
    {                                                                                                        \
        "POST", "/backward",                                                                                 \
            "{'model': 'r', 'inputs': {'a': [[1, 2], [3, 4]], 'b': [[1, 2], [3, 4]]}" rest "}", status,      \
            slug, pointer                                                                                    \
    }

static void backward(void **state) {
    (void)state;
    static const struct refusal cases[] = {
        BACKWARD("", 422, "invalid-value", "/targets"),
        BACKWARD(", 'targets': {'y': [0, 2]}", 422, "invalid-value", "/targets/y"),
        BACKWARD(", 'targets': {'y': [-1, 0]}", 422, "invalid-value", "/targets/y"),
        BACKWARD(", 'targets': {'y': [0, 0.5]}", 422, "invalid-value", "/targets/y"),
        BACKWARD(", 'targets': {'y': [0, 1e30]}", 422, "invalid-value", "/targets/y"),
        BACKWARD(", 'targets': {'y': [0, 9223372036854775808]}", 422, "invalid-value", "/targets/y"),
        BACKWARD(", 'targets': {'y': [0]}", 422, "shape-mismatch", "/targets/y"),
        BACKWARD(", 'targets': {'y': [[0], [1]]}", 422, "shape-mismatch", "/targets/y"),
        BACKWARD(", 'targets': {'y': [[0, 1, 0], [1, 0, 0]]}", 422, "shape-mismatch", "/targets/y"),
        BACKWARD(", 'targets': {}", 422, "invalid-value", "/targets/y"),
        BACKWARD(", 'targets': {'z': [0, 1]}", 422, "unknown-name", "/targets/z"),
        BACKWARD(", 'targets': {'y': [0, 1], 'z': [0, 1]}", 422, "unknown-name", "/targets/z"),
        BACKWARD(", 'upstream': {'z': [[0, 1], [1, 2]]}", 422, "unknown-name", "/upstream/z"),
        BACKWARD(", 'upstream': {'out': [[0, 1]]}", 422, "shape-mismatch", "/upstream/out"),
        BACKWARD(", 'targets': {'y': [0, 1]}, 'return': 'inputs'", 422, "invalid-value", "/return"),
        BACKWARD(", 'targets': {'y': [0, 1]}, 'return': ['weights']", 422, "invalid-value", "/return"),
        BACKWARD(", 'targets': {'y': [0, 1]}, 'return': [1]", 422, "invalid-value", "/return"),
        BACKWARD(", 'targets': {'y': [0, 1]}, 'apply': 1", 422, "invalid-value", "/apply"),
        BACKWARD(", 'targets': {'y': [0, 1]}, 'apply': {'lr': '1'}", 422, "invalid-value", "/apply"),
        BACKWARD(", 'targets': {'y': [0, 1]}, 'apply': {'lr': -1}", 422, "invalid-value", "/apply"),
        BACKWARD(", 'targets': {'y': [0, 1]}, 'apply': {'lr': 1, 'momentum': 1}", 422, "unknown-member",
                 "/apply/momentum"),
        BACKWARD(", 'targets': {'y': [0, 1]}, 'accumulate': {}", 422, "invalid-value", "/accumulate"),
        BACKWARD(", 'targets': {'y': [0, 1]}, 'apply': true, 'accumulate': true", 422, "invalid-value",
                 "/accumulate"),
        BACKWARD(", 'targets': {'y': [0, 1]}, 'retain': true", 422, "invalid-value", "/retain"),
        BACKWARD(", 'targets': {'y': [0, 1]}, 'normalizer': 0", 422, "invalid-value", "/normalizer"),
        BACKWARD(", 'targets': {'y': [0, 1]}, 'normalizer': [1, 2]", 422, "invalid-value", "/normalizer"),
        BACKWARD(", 'targets': {'y': [0, 1]}, 'normalizer': 'x'", 422, "invalid-value", "/normalizer"),
        BACKWARD(", 'targets': {'y': [0, 1]}, 'outputs': ['out']", 422, "unknown-member", "/outputs"),
        BACKWARD(", 'targets': {'y': [0, 1]}, 'context': 'c'", 422, "invalid-value", NULL),
        /* a target [2] for [2, 1] is never broadcast */
        R(", 'targets': {'t': [1, 2], 'w': [1, 1]}", 422, "shape-mismatch", "/targets/t"),
        R(", 'targets': {'t': [[1], [2]]}", 422, "invalid-value", "/targets/w"),
        R(", 'targets': {'t': [[1], [2]], 'w': [1]}", 422, "shape-mismatch", "/targets/w"),
        R(", 'targets': {'t': [[1], [2]], 'w': [1, 1]}, 'apply': true", 409, "no-optimizer", NULL),
        {"POST", "/backward", "{'model': 'plain', 'inputs': {'x': [[1, 2, 3]]}, 'targets': {'y': [0]}}", 422,
         "invalid-value", "/targets"},
        {"POST", "/backward", "{'targets': {'y': [0]}}", 422, "invalid-value", "/model"},
        {"POST", "/backward", "{'context': 1, 'targets': {'y': [0]}}", 422, "invalid-value", "/context"},
        /* ids */
        FORWARD("{'model': 'e', 'inputs': {'ids': [[0, 5]]}}", 422, "invalid-value", "/inputs/ids"),
        FORWARD("{'model': 'e', 'inputs': {'ids': [[0, -1]]}}", 422, "invalid-value", "/inputs/ids"),
        FORWARD("{'model': 'e', 'inputs': {'ids': [[0, 1.5]]}}", 422, "invalid-value", "/inputs/ids"),
        {"POST", "/backward", "{'model': 'e', 'inputs': {'ids': [[0, 1]]}, 'upstream': {'ids': [[1, 1]]}}",
         422, "unknown-name", "/upstream/ids"},
    };
    CHECK(cases);
}

/* --- specifications ---------------------------------------------------------------------------------- */

#define MODEL(text, status, slug, pointer)                                                                   \
    { "POST", "/models", "{'name': 'n', " text "}", status, slug, pointer }
#define IN  "'inputs': {'x': {'shape': [3]}}, "
#define LIN "'layers': [{'op': 'linear', 'out_features': 2}]"

static void specifications(void **state) {
    (void)state;
    static const struct refusal cases[] = {
        {"POST", "/models", "{}", 422, "invalid-value", "/name"},
        {"POST", "/models", "{'name': 1, " IN LIN "}", 422, "invalid-value", "/name"},
        {"POST", "/models", "{'name': '', " IN LIN "}", 422, "invalid-name", "/name"},
        {"POST", "/models", "{'name': '.hidden', " IN LIN "}", 422, "invalid-name", "/name"},
        {"POST", "/models", "{'name': 'a/b', " IN LIN "}", 422, "invalid-name", "/name"},
        {"POST", "/models", "{'name': '\xc3\xa9', " IN LIN "}", 422, "invalid-name", "/name"},
        {"POST", "/models",
         "{'name': 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', " IN LIN "}", 422,
         "invalid-name", "/name"},
        MODEL(LIN, 422, "invalid-value", "/inputs"),
        MODEL("'inputs': {}, " LIN, 422, "invalid-value", "/inputs"),
        MODEL("'inputs': ['x'], " LIN, 422, "invalid-value", "/inputs"),
        MODEL("'inputs': {'x': {}}, " LIN, 422, "invalid-value", "/inputs/x/shape"),
        MODEL("'inputs': {'x': {'shape': 3}}, " LIN, 422, "invalid-value", "/inputs/x/shape"),
        MODEL("'inputs': {'x': {'shape': [3.5]}}, " LIN, 422, "invalid-value", "/inputs/x/shape"),
        MODEL("'inputs': {'x': {'shape': [0]}}, " LIN, 422, "invalid-value", NULL),
        MODEL("'inputs': {'x': {'shape': [-3]}}, " LIN, 422, "invalid-value", NULL),
        MODEL("'inputs': {'x': {'shape': [3], 'size': 1}}, " LIN, 422, "unknown-member", "/inputs/x/size"),
        MODEL("'inputs': {'x': {'shape': [3], 'dtype': 'I32'}}, " LIN, 422, "invalid-value",
              "/inputs/x/dtype"),
        MODEL("'inputs': {'x': {'shape': [3], 'dtype': 'F64'}}, " LIN, 422, "invalid-value",
              "/inputs/x/dtype"),
        MODEL("'inputs': {'-x': {'shape': [3]}}, " LIN, 422, "invalid-name", NULL),
        MODEL("'inputs': {'x/y': {'shape': [3]}}, " LIN, 422, "invalid-name", NULL),
        MODEL("'inputs': {'x': {'shape': [1, 1, 1, 1, 1, 1, 1, 1]}}, " LIN, 422, "size-overflow",
              "/inputs/x/shape"),
        MODEL("'inputs': {'x': {'shape': [1000000000, 1000000000]}}, " LIN, 422, "size-overflow", NULL),
        MODEL("'inputs': {'x': {'shape': [9223372036854775807, 2]}}, " LIN, 422, "size-overflow", NULL),
        MODEL("'inputs': {'x': {'shape': [9223372036854775808]}}, " LIN, 422, "invalid-value", NULL),
        MODEL(IN "'layers': []", 422, "invalid-value", "/layers"),
        MODEL(IN "'layers': {}", 422, "invalid-value", "/layers"),
        MODEL(IN "'layers': [1]", 422, "invalid-value", "/layers/0"),
        MODEL(IN "'layers': [{}]", 422, "invalid-value", "/layers/0/op"),
        MODEL(IN "'layers': [{'op': 'relu'}, {'op': 'magic'}]", 422, "unknown-name", "/layers/1/op"),
        MODEL(IN "'layers': [{'op': 'adam'}]", 422, "unknown-name", "/layers/0/op"),
        MODEL(IN "'layers': [{'op': 'mse'}]", 422, "invalid-value", "/layers/0/op"),
        MODEL(IN "'layers': [{'op': 'linear'}]", 422, "invalid-value", "/layers/0/out_features"),
        MODEL(IN "'layers': [{'op': 'linear', 'out_features': 0}]", 422, "invalid-value",
              "/layers/0/out_features"),
        MODEL(IN "'layers': [{'op': 'linear', 'out_features': 2.5}]", 422, "invalid-value",
              "/layers/0/out_features"),
        MODEL(IN "'layers': [{'op': 'linear', 'out_features': '2'}]", 422, "invalid-value",
              "/layers/0/out_features"),
        MODEL(IN "'layers': [{'op': 'linear', 'out_features': 1099511627776}]", 422, "invalid-value",
              "/layers/0/out_features"),
        MODEL("'inputs': {'x': {'shape': [1000000000]}}, 'layers': [{'op': 'linear', 'out_features': "
              "1000000000}]",
              422, "size-overflow", NULL),
        MODEL("'inputs': {'x': {'shape': [40000]}}, 'layers': [{'op': 'linear', 'out_features': 40000}, "
              "{'op': 'linear', 'out_features': 40000}]",
              413, "too-large", NULL),
        MODEL(IN "'layers': [{'op': 'linear', 'out_features': 2, 'units': 3}]", 422, "unknown-member",
              "/layers/0/units"),
        MODEL(IN "'layers': [{'op': 'dropout', 'p': 1.5}]", 422, "invalid-value", "/layers/0/p"),
        MODEL(IN "'layers': [{'op': 'relu', 'name': 'x'}]", 422, "invalid-name", NULL),
        MODEL(IN "'layers': [{'op': 'relu', 'name': 'a'}, {'op': 'relu', 'name': 'a'}]", 422, "invalid-name",
              NULL),
        MODEL(IN "'layers': [{'op': 'relu', 'name': '1'}, {'op': 'relu'}]", 422, "invalid-name", NULL),
        MODEL(IN "'layers': [{'op': 'relu', 'name': 1}]", 422, "invalid-value", "/layers/0/name"),
        MODEL(IN "'layers': [{'op': 'relu', 'trainable': 'no'}]", 422, "invalid-value",
              "/layers/0/trainable"),
        MODEL(IN "'layers': [{'op': 'relu', 'inputs': 'x'}]", 422, "invalid-value", "/layers/0/inputs"),
        MODEL(IN "'layers': [{'op': 'relu', 'inputs': ['z']}]", 422, "unknown-name", "/layers/0/inputs"),
        MODEL(IN "'layers': [{'op': 'relu', 'inputs': ['x', 'x']}]", 422, "invalid-value",
              "/layers/0/inputs"),
        MODEL(IN "'layers': [{'op': 'add', 'inputs': ['x']}]", 422, "invalid-value", "/layers/0/inputs"),
        MODEL(IN "'layers': [{'op': 'linear', 'out_features': 2}, {'op': 'add', 'inputs': ['x', '0']}]", 422,
              "shape-mismatch", NULL),
        MODEL(IN "'layers': [{'op': 'relu', 'inputs': ['0']}]", 422, "cycle", "/layers/0/inputs"),
        MODEL(IN "'layers': [{'op': 'add', 'inputs': ['x', 'b'], 'name': 'a'}, "
                 "{'op': 'relu', 'name': 'b', 'inputs': ['a']}]",
              422, "cycle", NULL),
        MODEL("'inputs': {'a': {'shape': [1]}, 'b': {'shape': [1]}}, 'layers': [{'op': 'relu'}]", 422,
              "invalid-value", "/layers/0/inputs"),
        MODEL("'inputs': {'x': {'shape': [3], 'dtype': 'I64'}}, " LIN, 422, "dtype-mismatch", NULL),
        MODEL(IN LIN ", 'loss': {'op': 'relu'}", 422, "invalid-value", "/loss/op"),
        MODEL(IN LIN ", 'loss': {'op': 'mse', 'target': 't', 'power': 2}", 422, "unknown-member",
              "/loss/power"),
        MODEL(IN LIN ", 'loss': {'op': 'mse', 'reduction': 'none'}", 422, "invalid-value", "/loss/reduction"),
        MODEL(IN LIN ", 'loss': {'op': 'mse', 'scale': 'x'}", 422, "invalid-value", "/loss/scale"),
        MODEL(IN LIN ", 'loss': {'op': 'mse', 'input': 'z'}", 422, "unknown-name", "/loss/input"),
        MODEL(IN LIN ", 'loss': [{'op': 'mse'}, {'op': 'mse', 'input': 'z'}]", 422, "unknown-name",
              "/loss/1/input"),
        MODEL(IN LIN ", 'loss': [{'op': 'mse'}, {'op': 'mse', 'bad': 1}]", 422, "unknown-member",
              "/loss/1/bad"),
        MODEL(IN LIN ", 'loss': {'op': 'cross_entropy', 'weight': [1, 2, 3]}", 422, "invalid-value",
              "/loss/weight"),
        MODEL(IN LIN ", 'outputs': ['z']", 422, "unknown-name", "/outputs"),
        MODEL(IN LIN ", 'outputs': ['0', '0']", 422, "invalid-value", NULL),
        MODEL(IN LIN ", 'outputs': '0'", 422, "invalid-value", "/outputs"),
        MODEL(IN LIN ", 'seed': -1", 422, "invalid-value", "/seed"),
        MODEL(IN LIN ", 'seed': 9007199254740992", 422, "invalid-value", "/seed"),
        MODEL(IN LIN ", 'dtype': 'F16'", 422, "invalid-value", "/dtype"),
        MODEL(IN LIN ", 'optimizer': {'op': 'adam', 'betas': [0.9]}", 422, "invalid-value",
              "/optimizer/betas"),
        MODEL(IN LIN ", 'optimizer': {'op': 'adam', 'betas': [0.9, 1]}", 422, "invalid-value",
              "/optimizer/betas"),
        MODEL(IN LIN ", 'optimizer': {'op': 'sgd', 'rate': 1}", 422, "unknown-member", "/optimizer/rate"),
        MODEL(IN LIN ", 'optimizer': {'op': 'linear'}", 422, "unknown-name", "/optimizer/op"),
        MODEL(IN LIN ", 'optimizer': 'sgd'", 422, "invalid-value", "/optimizer"),
        MODEL(IN LIN ", 'comment': 'mine'", 422, "unknown-member", "/comment"),
        /* the same inside a request */
        FORWARD("{'model': {" IN "'layers': [{'op': 'magic'}]}, 'inputs': {'x': [[1, 2, 3]]}}", 422,
                "unknown-name", "/model/layers/0/op"),
        FORWARD("{'model': {" IN LIN ", 'comment': 1}, 'inputs': {'x': [[1, 2, 3]]}}", 422, "unknown-member",
                "/model/comment"),
        FORWARD("{'model': {" IN LIN "}, 'inputs': {'x': [[1, 2, 3]]}}", 422, "invalid-value", "/parameters"),
        FORWARD("{'model': {" IN LIN ", 'seed': 1}, 'inputs': {'x': [[1, 2, 3]]}, 'retain': true}", 422,
                "invalid-value", "/retain"),
    };
    CHECK(cases);
}

/* Its length. */
static size_t append(char *to, const char *text) {
    size_t size = strlen(text);
    memcpy(to, text, size + 1);
    return size;
}

/* Deeper than any document has to be, and wider than a model may be. */
static void monsters(void **state) {
    (void)state;
    enum { DEEP = 100000, LAYERS = 5000 };
    static const char head[] = "{\"model\": \"m\", \"inputs\": {\"x\": ", layer[] = "{\"op\": \"relu\"},";
    char *body = service_keep(malloc(sizeof head + DEEP));
    memcpy(body, head, sizeof head - 1);
    memset(body + sizeof head - 1, '[', DEEP);
    struct http_request request = {.method = "POST",
                                   .path = "/forward",
                                   .type = JSON_TYPE,
                                   .body = body,
                                   .size = sizeof head - 1 + DEEP};
    check_problem(service_call(422, &request), 422, "shape-mismatch", "/inputs/x");
    memset(body, '[', DEEP);
    request.size = DEEP;
    check_problem(service_call(400, &request), 400, "malformed", NULL);

    char *layers = service_keep(calloc(1, sizeof layer * LAYERS + 200)), *at_end = layers;
    at_end += append(at_end, "{\"name\": \"n\", \"inputs\": {\"x\": {\"shape\": [3]}}, \"layers\": [");
    for (int i = 0; i < LAYERS; i++) at_end += append(at_end, layer);
    append(at_end - 1, "]}");
    request = (struct http_request){
        .method = "POST", .path = "/models", .type = JSON_TYPE, .body = layers, .size = strlen(layers)};
    check_problem(service_call(413, &request), 413, "too-large", "/layers");
    service_is_alive();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        service_test(not_json), service_test(numbers),  service_test(members),        service_test(shapes),
        service_test(base64),   service_test(backward), service_test(specifications), service_test(monsters),
    };
    return cmocka_run_group_tests(tests, setup, service_teardown);
}
