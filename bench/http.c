/* http.c - the step over HTTP on loopback: POST /backward with "apply", from a client that sends the same
 * bytes each time over one connection. Usage: http URL json|safetensors ROWS */
#include <curl/curl.h>
#include <stdint.h>
#include <string.h>

#include "step.h"

#define SPECIFICATION                                                                                        \
    "{\"name\": \"bench\", \"seed\": 1, \"inputs\": {\"x\": {\"shape\": [784]}}, \"layers\": ["              \
    "{\"op\": \"linear\", \"out_features\": 512}, {\"op\": \"relu\"}, "                                      \
    "{\"op\": \"linear\", \"out_features\": 512}, {\"op\": \"relu\"}, "                                      \
    "{\"op\": \"linear\", \"out_features\": 10}], "                                                          \
    "\"loss\": {\"op\": \"cross_entropy\"}, \"optimizer\": {\"op\": \"sgd\"}}"

struct peer {
    CURL *curl;
    struct curl_slist *headers;
    char *body;
    size_t size;
};

static size_t ignore(char *data, size_t size, size_t n, void *user) {
    (void)data, (void)user;
    return size * n;
}

static void send_request(CURL *curl, const char *url, const char *method, const char *body, size_t size,
                         struct curl_slist *headers, long expected) {
    long status = 0;
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)size);
    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    if (code == CURLE_OK && (!expected || status == expected)) return;
    fprintf(stderr, "http: %s %s: %s, status %ld\n", method, url, curl_easy_strerror(code), status);
    exit(EXIT_FAILURE);
}

/* {"model": "bench", "apply": true, "inputs": {"x": [[...]]}, "targets": {"y": [...]}} */
static char *json_body(const float *x, const long *y, int rows, size_t *size) {
    char *text = NULL;
    FILE *f = need(open_memstream(&text, size));
    fputs("{\"model\": \"bench\", \"apply\": true, \"inputs\": {\"x\": [", f);
    for (int i = 0; i < rows * FEATURES; i++) {
        const char *open = i % FEATURES ? ", " : i ? "], [" : "[";
        fprintf(f, "%s%.9g", open, (double)x[i]);
    }
    fputs("]]}, \"targets\": {\"y\": [", f);
    for (int i = 0; i < rows; i++) fprintf(f, "%s%ld", i ? ", " : "", y[i]);
    fputs("]}}", f);
    fclose(f);
    return text;
}

static char *safetensors_body(const float *x, const long *y, int rows, size_t *size) {
    char header[512];
    size_t x_bytes = (size_t)rows * FEATURES * sizeof *x, y_bytes = (size_t)rows * sizeof *y;
    int n = snprintf(
        header, sizeof header,
        "{\"__metadata__\":{\"model\":\"bench\",\"apply\":\"true\"},\"inputs/x\":{\"dtype\":\"F32\","
        "\"shape\":[%d,%d],\"data_offsets\":[0,%zu]},\"targets/y\":{\"dtype\":\"I64\",\"shape\":[%d],"
        "\"data_offsets\":[%zu,%zu]}}",
        rows, FEATURES, x_bytes, rows, x_bytes, x_bytes + y_bytes);
    uint64_t length = (uint64_t)n;
    *size = sizeof length + length + x_bytes + y_bytes;
    char *text = need(malloc(*size));
    memcpy(text, &length, sizeof length);
    memcpy(text + sizeof length, header, length);
    memcpy(text + sizeof length + length, x, x_bytes);
    memcpy(text + sizeof length + length + x_bytes, y, y_bytes);
    return text;
}

static char backward_url[256];

static void step(void *arg) {
    struct peer *p = arg;
    send_request(p->curl, backward_url, "POST", p->body, p->size, p->headers, 200);
}

int main(int argc, char **argv) {
    char url[256];
    if (argc != 4) return fputs("usage: http URL json|safetensors ROWS\n", stderr), EXIT_FAILURE;
    int is_json = strcmp(argv[2], "json") == 0, rows = (int)strtol(argv[3], NULL, 10);
    float *x = need(malloc((size_t)rows * FEATURES * sizeof *x));
    long *y = need(malloc((size_t)rows * sizeof *y));
    fill_batch(x, y, rows);
    struct peer p = {.curl = need(curl_easy_init())};
    p.body = is_json ? json_body(x, y, rows, &p.size) : safetensors_body(x, y, rows, &p.size);
    free(x);
    free(y);
    curl_easy_setopt(p.curl, CURLOPT_WRITEFUNCTION, ignore);
    p.headers = curl_slist_append(NULL, "Expect:");
    p.headers = curl_slist_append(p.headers, "Content-Type: application/json");
    snprintf(url, sizeof url, "%s/models/bench", argv[1]);
    send_request(p.curl, url, "DELETE", "", 0, p.headers, 0);
    snprintf(url, sizeof url, "%s/models", argv[1]);
    send_request(p.curl, url, "POST", SPECIFICATION, strlen(SPECIFICATION), p.headers, 201);
    if (!is_json) {
        curl_slist_free_all(p.headers);
        p.headers = curl_slist_append(NULL, "Expect:");
        p.headers = curl_slist_append(p.headers, "Content-Type: application/safetensors");
    }
    snprintf(backward_url, sizeof backward_url, "%s/backward", argv[1]);
    int status = serve_steps(step, &p);
    curl_slist_free_all(p.headers);
    curl_easy_cleanup(p.curl);
    free(p.body);
    return status;
}
