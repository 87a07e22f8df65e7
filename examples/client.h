/* client.h - a small client of gradd: libcurl carries the calls, jansson the JSON, and batches travel as
 * safetensors. Copy it, and change it: it is for one thread of a program on a little-endian machine, and any error
 * ends the program with a line that names the fault. */
#ifndef EXAMPLES_CLIENT_H
#define EXAMPLES_CLIENT_H

#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define AS_JSON        "application/json"
#define AS_SAFETENSORS "application/safetensors"

struct bytes {
    char *data; /* malloc'ed */
    size_t size;
};

/* --- giving up --------------------------------------------------------------------------------------- */

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...) {
    va_list args;
    fflush(stdout);
    fputs("error: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

static void *allocate(size_t n, size_t size) {
    void *memory = calloc(n > 0 ? n : 1, size);
    if (!memory) die("memory is out");
    return memory;
}

/* --- a daemon of our own ----------------------------------------------------------------------------- */

static pid_t daemon_pid; /* 0: none */

/* Asks the daemon, if there is one, to stop, and waits for its end: true if that was in order. */
static bool daemon_stop(void) {
    int status = 0;
    if (!daemon_pid) return true;
    kill(daemon_pid, SIGTERM);
    while (waitpid(daemon_pid, &status, 0) < 0)
        if (errno != EINTR) return false;
    daemon_pid = 0;
    return status == 0;
}

/* Runs at exit, so that no error leaves the daemon behind. */
static void daemon_end(void) { daemon_stop(); }

/* Starts the daemon on a free port of the loopback; where it listens is the answer, malloc'ed. */
static char *daemon_start(const char *program) {
    int ends[2];
    if (pipe(ends) != 0) die("pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid < 0) die("fork: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM); /* should we be killed, it is not to stay */
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(program, program, "--listen", "127.0.0.1:0", "--log", "off", (char *)NULL);
        fprintf(stderr, "%s: %s\n", program, strerror(errno));
        _exit(EXIT_FAILURE);
    }
    close(ends[1]);
    daemon_pid = pid;
    atexit(daemon_end);

    static const char greeting[] = "listening on ";
    FILE *said = fdopen(ends[0], "r");
    char *line = NULL, *url = NULL;
    size_t room = 0;
    while (said && !url && getline(&line, &room, said) > 0) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, greeting, sizeof greeting - 1) == 0) url = strdup(line + sizeof greeting - 1);
    }
    free(line);
    if (said) fclose(said);
    if (!url) die("the daemon, %s, did not start", program);
    return url;
}

/* --- calls ------------------------------------------------------------------------------------------- */

struct client {
    CURL *curl;
    char *url;         /* http://HOST:PORT; owned */
    const char *token; /* or NULL */
};

struct call {
    const char *method, *path;
    struct bytes body;
    const char *type, *accept; /* of the body, NULL: there is none; of the answer, NULL: the same */
};

struct reply {
    long status;
    struct bytes body; /* ends with a 0 that size does not count */
};

static size_t append(char *data, size_t one, size_t n, void *reply) {
    struct bytes *body = &((struct reply *)reply)->body;
    char *grown = realloc(body->data, body->size + n * one + 1);
    if (!grown) return 0; /* libcurl ends the call */
    memcpy(grown + body->size, data, n * one);
    body->data = grown;
    body->size += n * one;
    grown[body->size] = '\0';
    return n * one;
}

static struct curl_slist *add_header(struct curl_slist *list, const char *name, const char *value) {
    char line[1024];
    if (!value) return list;
    if (snprintf(line, sizeof line, "%s%s", name, value) >= (int)sizeof line) die("%s... is too long", name);
    list = curl_slist_append(list, line);
    if (!list) die("memory is out");
    return list;
}

/* The answer, whatever its status; the body is the caller's to free. */
static struct reply client_send(struct client *client, struct call call) {
    struct reply reply = {.body.data = allocate(1, 1)};
    char url[1024], why[CURL_ERROR_SIZE] = "";
    if (snprintf(url, sizeof url, "%s%s", client->url, call.path) >= (int)sizeof url)
        die("the URL %s is too long", client->url);
    struct curl_slist *headers = add_header(NULL, "Content-Type: ", call.type);
    headers = add_header(headers, "Accept: ", call.accept);
    headers = add_header(headers, "Authorization: Bearer ", client->token);

    curl_easy_reset(client->curl); /* the connection stays open for the next call */
    curl_easy_setopt(client->curl, CURLOPT_URL, url);
    curl_easy_setopt(client->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(client->curl, CURLOPT_PROXY, "");
    curl_easy_setopt(client->curl, CURLOPT_TIMEOUT, 60L);
    curl_easy_setopt(client->curl, CURLOPT_ERRORBUFFER, why);
    curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, headers);
    if (call.type) {
        curl_easy_setopt(client->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call.body.size);
        curl_easy_setopt(client->curl, CURLOPT_POSTFIELDS, call.body.data);
    }
    curl_easy_setopt(client->curl, CURLOPT_CUSTOMREQUEST, call.method);
    curl_easy_setopt(client->curl, CURLOPT_WRITEFUNCTION, append);
    curl_easy_setopt(client->curl, CURLOPT_WRITEDATA, &reply);
    CURLcode code = curl_easy_perform(client->curl);
    if (code != CURLE_OK) die("%s %s: %s", call.method, url, why[0] ? why : curl_easy_strerror(code));
    curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &reply.status);
    curl_slist_free_all(headers);
    return reply;
}

/* `url` is malloc'ed and the client's from then on. */
static void client_open(struct client *client, char *url) {
    if (!url) die("memory is out");
    for (size_t end = strlen(url); end > 0 && url[end - 1] == '/'; end--) url[end - 1] = '\0';
    client->url = url;
    client->curl = curl_easy_init();
    if (!client->curl) die("libcurl cannot begin");
}

static void client_close(struct client *client) {
    curl_easy_cleanup(client->curl);
    free(client->url);
}

/* Ends the program with what the problem document (RFC 9457) of a refusal says. */
__attribute__((noreturn)) static void client_refused(struct call call, struct reply reply) {
    json_t *problem = json_loadb(reply.body.data, reply.body.size, 0, NULL);
    const char *title = json_string_value(json_object_get(problem, "title"));
    const char *detail = json_string_value(json_object_get(problem, "detail"));
    const char *pointer = json_string_value(json_object_get(problem, "pointer"));
    die("%s %s was answered %ld%s%s: %s%s%s%s", call.method, call.path, reply.status, title ? " " : "",
        title ? title : "", detail ? detail : "and no word why", pointer ? " (at " : "",
        pointer ? pointer : "", pointer ? ")" : "");
}

/* The body of an answer that is a success. */
static struct bytes client_call(struct client *client, struct call call) {
    struct reply reply = client_send(client, call);
    if (reply.status / 100 != 2) client_refused(call, reply);
    return reply.body;
}

/* --- safetensors ------------------------------------------------------------------------------------- */
/* 8 bytes: the header's size N; N bytes of JSON: {"name": {"dtype", "shape", "data_offsets"}, ...}; data. */

struct tensor {
    const char *name, *dtype; /* F32, I64 or U8 */
    size_t rows, width;       /* width 0: a vector of that many rows */
    const void *data;
};

static size_t tensor_bytes(const struct tensor *tensor) {
    size_t one = strcmp(tensor->dtype, "I64") == 0 ? 8 : strcmp(tensor->dtype, "F32") == 0 ? 4 : 1;
    return tensor->rows * (tensor->width ? tensor->width : 1) * one;
}

/* A file of these tensors; `metadata`, an object of strings, is used up. */
static struct bytes safetensors_write(json_t *metadata, const struct tensor *tensors, size_t n) {
    json_t *header = json_pack("{s:o}", "__metadata__", metadata);
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        const struct tensor *t = &tensors[i];
        size_t end = size + tensor_bytes(t);
        json_t *shape = json_pack("[I]", (json_int_t)t->rows);
        if (t->width) json_array_append_new(shape, json_integer((json_int_t)t->width));
        json_t *entry = json_pack("{s:s, s:o, s:[II]}", "dtype", t->dtype, "shape", shape, "data_offsets",
                                  (json_int_t)size, (json_int_t)end);
        if (json_object_set_new(header, t->name, entry)) die("memory is out");
        size = end;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    if (!text) die("memory is out");

    uint64_t padded = (strlen(text) + 7) / 8 * 8; /* so that the data are aligned */
    struct bytes file = {allocate(8 + padded + size, 1), 8 + padded + size};
    memcpy(file.data, &padded, 8);
    memset(file.data + 8, ' ', padded);
    memcpy(file.data + 8, text, strlen(text));
    char *at = file.data + 8 + padded;
    for (size_t i = 0; i < n; at += tensor_bytes(&tensors[i++]))
        memcpy(at, tensors[i].data, tensor_bytes(&tensors[i]));
    free(text);
    return file;
}

/* Where in the data a tensor of this type and width lies, and its rows: its bytes from `begin`. */
static bool find_tensor(json_t *header, struct tensor *tensor, size_t *begin) {
    json_t *entry = json_object_get(header, tensor->name);
    json_t *shape = json_object_get(entry, "shape"), *offsets = json_object_get(entry, "data_offsets");
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    json_int_t rows = json_integer_value(json_array_get(shape, 0));
    json_int_t from = json_integer_value(json_array_get(offsets, 0));
    json_int_t to = json_integer_value(json_array_get(offsets, 1));
    if (!dtype || strcmp(dtype, tensor->dtype) != 0 || json_array_size(shape) != (tensor->width ? 2 : 1) ||
        json_integer_value(json_array_get(shape, 1)) != (json_int_t)tensor->width || rows < 0 ||
        rows > INT32_MAX || from < 0 || to < from)
        return false;
    tensor->rows = (size_t)rows;
    *begin = (size_t)from;
    return tensor_bytes(tensor) == (size_t)(to - from);
}

/* A copy of a tensor's data, malloc'ed; given are its name, its type and its width, found are its rows. */
static void *safetensors_read(struct bytes file, struct tensor *tensor) {
    uint64_t header_size = 0;
    size_t begin;
    if (file.size >= 8) memcpy(&header_size, file.data, 8);
    if (file.size < 8 || header_size > file.size - 8)
        die("\"%s\" is not in a safetensors file", tensor->name);
    size_t size = file.size - 8 - header_size; /* of the data */
    json_t *header = json_loadb(file.data + 8, header_size, 0, NULL);
    if (!find_tensor(header, tensor, &begin) || begin > size || tensor_bytes(tensor) > size - begin)
        die("there is no tensor \"%s\" of type %s and width %zu", tensor->name, tensor->dtype, tensor->width);
    json_decref(header);
    void *data = allocate(tensor_bytes(tensor), 1);
    memcpy(data, file.data + 8 + header_size + begin, tensor_bytes(tensor));
    return data;
}

#endif
