/* http.c - see http.h. */
#include "http.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { PATIENCE_S = 120, SOCKET_PATIENCE_S = 30 };

struct http_client {
    CURL *curl;
    char url[128];
};

struct buffer {
    char *data; /* NULL only before the first byte */
    size_t size;
};

struct reading {
    const char *at;
    size_t left;
};

struct http_client *http_client_new(const char *url) {
    struct http_client *client = calloc(1, sizeof *client);
    if (!client || !(client->curl = curl_easy_init())) {
        free(client);
        return NULL;
    }
    snprintf(client->url, sizeof client->url, "%s", url);
    return client;
}

void http_client_free(struct http_client *client) {
    if (!client) return;
    curl_easy_cleanup(client->curl);
    free(client);
}

static size_t collect(char *data, size_t size, size_t n, void *arg) {
    struct buffer *buffer = arg;
    char *larger = realloc(buffer->data, buffer->size + size * n + 1);
    if (!larger) return 0;
    memcpy(larger + buffer->size, data, size * n);
    buffer->data = larger;
    buffer->size += size * n;
    larger[buffer->size] = '\0';
    return size * n;
}

static size_t hand_out(char *out, size_t size, size_t n, void *arg) {
    struct reading *reading = arg;
    size_t part = size * n < reading->left ? size * n : reading->left;
    memcpy(out, reading->at, part);
    reading->at += part;
    reading->left -= part;
    return part;
}

static void add_header(struct curl_slist **list, const char *name, const char *value) {
    char line[512];
    if (!value) return;
    snprintf(line, sizeof line, "%s: %s", name, value);
    struct curl_slist *longer = curl_slist_append(*list, line);
    if (longer) *list = longer;
}

/* "Name:" without a value keeps libcurl from sending a header of its own. */
static struct curl_slist *headers_of(const struct http_request *request) {
    struct curl_slist *list = NULL;
    char token[300];
    snprintf(token, sizeof token, "Bearer %s", request->token ? request->token : "");
    add_header(&list, "Content-Type", request->type ? request->type : "");
    add_header(&list, "Accept", request->accept ? request->accept : "");
    add_header(&list, "Authorization", request->token ? token : NULL);
    add_header(&list, "If-Match", request->if_match);
    add_header(&list, "If-None-Match", request->if_none_match);
    add_header(&list, "Idempotency-Key", request->key);
    add_header(&list, "Transfer-Encoding", request->chunked ? "chunked" : NULL);
    add_header(&list, "Expect", "");
    return list;
}

bool http_call(struct http_client *client, const struct http_request *request, struct http_answer *answer) {
    CURL *curl = client->curl;
    struct buffer head = {0}, body = {0};
    struct reading reading = {request->body, request->size};
    char url[1024], why[CURL_ERROR_SIZE] = "";
    long status = 0;
    struct curl_slist *headers = headers_of(request);
    snprintf(url, sizeof url, "%s%s", client->url, request->path);
    curl_easy_reset(curl); /* which keeps the connection */
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)PATIENCE_S);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, collect);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &head);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &body);
    if (request->chunked) {
        curl_easy_setopt(curl, CURLOPT_POST, 1L);
        curl_easy_setopt(curl, CURLOPT_READFUNCTION, hand_out);
        curl_easy_setopt(curl, CURLOPT_READDATA, &reading);
    } else if (request->body) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->size);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request->body);
    }
    if (strcmp(request->method, "HEAD") == 0) curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method);

    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_slist_free_all(headers);
    *answer = (struct http_answer){(int)status, head.data, (unsigned char *)body.data, body.size};
    if (code != CURLE_OK) {
        free(answer->body);
        answer->status = 0;
        answer->body = (unsigned char *)strdup(why[0] ? why : curl_easy_strerror(code));
        answer->size = answer->body ? strlen((char *)answer->body) : 0;
    }
    if (!answer->headers) answer->headers = calloc(1, 1);
    if (!answer->body) answer->body = calloc(1, 1);
    return code == CURLE_OK;
}

void http_answer_fini(struct http_answer *answer) {
    free(answer->headers);
    free(answer->body);
    *answer = (struct http_answer){0};
}

const char *http_header(const struct http_answer *answer, const char *name, char value[256]) {
    size_t n = strlen(name);
    value[0] = '\0';
    for (const char *line = answer->headers; line && *line;) {
        size_t size = strcspn(line, "\r\n");
        if (size > n && line[n] == ':' && strncasecmp(line, name, n) == 0) {
            size_t skip = n + 1 + strspn(line + n + 1, " ");
            snprintf(value, 256, "%.*s", (int)(size - skip), line + skip);
        }
        line += size;
        line += strspn(line, "\r\n");
    }
    return value;
}

/* --- bare sockets ----------------------------------------------------------------------------------- */

int raw_connect(int port) { return raw_connect_from(NULL, 0, port); }

int raw_connect_from(const char *address, int receive, int port) {
    struct sockaddr_in from = {.sin_family = AF_INET};
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((in_port_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = SOCKET_PATIENCE_S};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (receive) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive, sizeof receive);
    bool bound = !address || (inet_pton(AF_INET, address, &from.sin_addr) == 1 &&
                              bind(fd, (struct sockaddr *)&from, sizeof from) == 0);
    if (bound && connect(fd, (struct sockaddr *)&to, sizeof to) == 0) return fd;
    close(fd);
    return -1;
}

bool raw_send(int fd, const void *data, size_t size) {
    const char *at = data;
    while (size > 0) {
        ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
        if (sent <= 0) return false;
        at += sent;
        size -= (size_t)sent;
    }
    return true;
}

bool raw_send_text(int fd, const char *text) { return raw_send(fd, text, strlen(text)); }

size_t raw_receive(int fd, char *text, size_t room) {
    size_t used = 0;
    while (used + 1 < room) {
        ssize_t got = recv(fd, text + used, room - 1 - used, 0);
        if (got <= 0) break;
        used += (size_t)got;
    }
    text[used] = '\0';
    return used;
}

int raw_status(const char *text) {
    if (strncmp(text, "HTTP/1.1 ", 9) != 0) return 0;
    return (int)strtol(text + 9, NULL, 10);
}
