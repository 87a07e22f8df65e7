/* Heads as RFC 9110 and RFC 9112 read them: lists in several lines, what may be there once, blanks behind values, the
 * four forms of a target. And what libmicrohttpd refuses by itself is refused as the service does it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../support/check.h"
#include "../support/e2e.h"

#define HOST  "Host: localhost\r\n"
#define CLOSE "Connection: close\r\n"
#define MODEL                                                                                                \
    "{'name': 'm', 'seed': 1, 'inputs': {'x': {'shape': [2]}}, 'optimizer': {'op': 'sgd', 'lr': 0.1}, "      \
    "'layers': [{'op': 'linear', 'out_features': 1}], 'loss': {'op': 'mse'}}"
#define FORWARD "{\"model\": \"m\", \"inputs\": {\"x\": [[1, 2]]}}" /* 41 bytes */
#define LENGTH  "Content-Length: 41\r\n"

static int setup(void **state) {
    (void)state;
    service_start((const char *const[]){"--allowed-origins", "https://a.example", NULL}, NULL);
    ask(201, "POST", "/models", MODEL);
    return 0;
}

/* All that comes until the daemon closes. */
static const char *exchange(const void *data, size_t size) {
    enum { ROOM = 1 << 16 };
    char *answer = service_keep(malloc(ROOM));
    int fd = raw_connect(service.port);
    assert_int_not_equal(fd, -1);
    raw_send(fd, data, size); /* may be cut short: the daemon has seen enough */
    raw_receive(fd, answer, ROOM);
    close(fd);
    return answer;
}

static const char *say(const char *text) { return exchange(text, strlen(text)); }

/* Of a GET with these headers, each ended, on a connection that is closed behind it. */
static const char *get(const char *path, const char *headers) {
    char text[4096];
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\n" HOST CLOSE "%s\r\n", path, headers);
    return say(text);
}

static void has_status(int status, const char *answer, const char *asked) {
    if (raw_status(answer) != status) fail_msg("%s\nis answered by %s", asked, answer);
}

/* --- headers in several lines ------------------------------------------------------------------------ */

static void lists_in_several_lines(void **state) {
    (void)state;
    char tag[256], line[1024];
    http_header(service_call(200, &(struct http_request){.method = "GET", .path = "/models/m/parameters"}),
                "ETag", tag);
    assert_int_not_equal(tag[0], '\0');
    static const char *const accepted[] = {
        "Accept: text/html\r\nAccept: application/json\r\n",
        "Accept: application/json\r\nAccept: text/html\r\n", "Accept:\r\nAccept: application/json\r\n",
        "Accept: application/json;q=0\r\nX: 1\r\naccept: application/*\r\n"};
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++)
        has_status(200, get("/models/m/parameters", accepted[i]), accepted[i]);
    static const char neither[] = "Accept: text/html\r\nAccept: text/plain\r\n";
    has_status(406, get("/models/m/parameters", neither), neither);
    const char *files =
        get("/models/m/parameters", "Accept: text/html\r\nAccept: application/safetensors\r\n");
    assert_non_null(strstr(files, "\r\nContent-Type: application/safetensors\r\n"));

    snprintf(line, sizeof line, "If-None-Match: \"other\"\r\nIf-None-Match: %s\r\n", tag);
    has_status(304, get("/models/m/parameters", line), line);
    static const char form[] =
        "DELETE /models/m/gradients HTTP/1.1\r\n" HOST CLOSE "If-Match: \"other\"\r\n%s%s\r\n\r\n";
    snprintf(line, sizeof line, form, "If-Match: ", tag);
    has_status(200, say(line), line);
    snprintf(line, sizeof line, form, "If-Match: ", "\"another\"");
    has_status(412, say(line), line);
}

/* Which of the two holds, another server on the way may see otherwise. */
static void single_headers_twice(void **state) {
    (void)state;
    static const struct {
        const char *name, *value;
    } cases[] = {
        {"Access-Control-Request-Method", "PUT"},
        {"Authorization", "Bearer secret"},
        {"Content-Length", "41"},
        {"Content-Type", JSON_TYPE},
        {"Host", "localhost"},
        {"Idempotency-Key", "k"},
        {"Origin", "https://a.example"},
        {"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *name = cases[i].name, *value = cases[i].value;
        char text[1024];
        snprintf(text, sizeof text, "POST /forward HTTP/1.1\r\n%s%s%s: %s\r\nX: 1\r\n%s: %s\r\n\r\n" FORWARD,
                 strcmp(name, "Host") == 0 ? "" : HOST, strcmp(name, "Content-Length") == 0 ? "" : LENGTH,
                 name, value, name, value);
        const char *answer = say(text);
        has_status(400, answer, text);
        assert_non_null(strstr(answer, "\r\nContent-Type: application/problem+json\r\n"));
        if (!strstr(strstr(answer, "\"detail\":"), name)) fail_msg("%s\nis answered by %s", text, answer);
    }
}

static void blanks_behind_values(void **state) {
    (void)state;
    static const char *const cases[] = {
        "POST /forward HTTP/1.1\r\nHost: localhost \t\r\n" CLOSE LENGTH "\r\n" FORWARD,
        "POST /forward HTTP/1.1\r\nHost:\tlocalhost\t\r\n" CLOSE "Content-Length: 41 \r\n\r\n" FORWARD,
        "POST /forward HTTP/1.1\r\n" HOST CLOSE "Content-Length:41\t \t\r\n\r\n" FORWARD,
        "POST /forward HTTP/1.1\r\n" HOST CLOSE "Transfer-Encoding: chunked \r\n\r\n29\r\n" FORWARD
        "\r\n0\r\n\r\n",
        "POST /forward HTTP/1.1\r\n" HOST CLOSE "Transfer-Encoding:\tCHUNKED\t\r\n\r\n29\r\n" FORWARD
        "\r\n0\r\n\r\n",
        "POST /forward HTTP/1.1\r\n" HOST CLOSE
        "Accept: application/json \r\nContent-Type: application/json\t\r\n"
        "Idempotency-Key: k \r\nX: \t \r\nY:  \r\n" LENGTH "\r\n" FORWARD,
        "POST /forward HTTP/1.1\r\n" HOST "Connection: close \r\nOrigin: https://a.example \r\n" LENGTH
        "\r\n" FORWARD,
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) has_status(200, say(cases[i]), cases[i]);
    /* They count, and still tell where the next request begins. */
    static const char two[] = "POST /forward HTTP/1.1\r\n" HOST "Content-Length: 41 \r\n\r\n" FORWARD
                              "GET /nowhere HTTP/1.1\r\n" HOST CLOSE "\r\n";
    const char *answer = say(two);
    has_status(200, answer, two);
    assert_non_null(strstr(answer, "HTTP/1.1 404 "));
    static const char inside[] = "POST /forward HTTP/1.1\r\n" HOST "Content-Length: 4 1\r\n\r\n" FORWARD;
    has_status(400, say(inside), inside);
}

/* --- what libmicrohttpd refuses by itself ------------------------------------------------------------ */

static char *repeated(const char *begin, const char *piece, size_t times, const char *end) {
    size_t size = strlen(piece), used = strlen(begin);
    char *text = service_keep(malloc(used + size * times + strlen(end) + 1));
    memcpy(text, begin, used);
    for (size_t i = 0; i < times; i++, used += size) memcpy(text + used, piece, size);
    memcpy(text + used, end, strlen(end) + 1);
    return text;
}

/* Is the only answer, and a problem document of this status; 0: there is none. */
static void is_a_problem(const char *text, int status) {
    const char *answer = say(text);
    char told[32];
    has_status(status, answer, text);
    if (!status) {
        if (answer[0]) fail_msg("%s\nis answered by %s", text, answer);
        return;
    }
    snprintf(told, sizeof told, "\"status\":%d,", status);
    const char *body = strstr(answer, "\r\n\r\n");
    if (!strstr(answer, "\r\nContent-Type: application/problem+json\r\n") ||
        !strstr(answer, "\r\nX-Request-Id: ") || !strstr(answer, "\r\nConnection: close\r\n") || !body ||
        !strstr(body, told) || strcasestr(answer, "html") || strstr(answer, "\nHTTP/1.1 "))
        fail_msg("%s\nis answered by %s", text, answer);
    service_json(body); /* parses */
}

#define CHUNKED "POST /forward HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"

static void errors_of_the_library(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int status;
    } cases[] = {
        /* the first line */
        {"GET\r\n\r\n", 0},
        {"GET \r\n\r\n", 400},
        {"GET /healthz\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1 \r\n" HOST "\r\n", 400},
        {"GET /healthz HTTP/1\r\n" HOST "\r\n", 400},
        {"GET /healthz http/1.1\r\n" HOST "\r\n", 400},
        {"GET /healthz HTTP/1.1x\r\n" HOST "\r\n", 400},
        {"GET /healthz FTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /healthz HTTP/0.9\r\n\r\n", 505},
        {"GET /healthz HTTP/3.0\r\n" HOST "\r\n", 505},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
        /* lines of the head */
        {"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1\r\n" HOST "no colon\r\n\r\n", 400},
        {"POST /forward HTTP/1.1\r\n" HOST "Content-Length: five\r\n\r\n12345", 400},
        {"POST /forward HTTP/1.1\r\n" HOST "Content-Length: 5x\r\n\r\n12345", 400},
        {"POST /forward HTTP/1.1\r\n" HOST "Content-Length: -5\r\n\r\n12345", 400},
        {"POST /forward HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n", 400},
        {"POST /forward HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551616\r\n\r\n12345", 413},
        {"GET /healthz HTTP/1.1\r\n" HOST "Content-Length: five\r\nCookie: a=b\r\n\r\n", 400},
        /* chunks, and what stands behind the last */
        {CHUNKED "five\r\n12345\r\n", 400},
        {CHUNKED "\r\n12345\r\n", 400},
        {CHUNKED "-5\r\n12345\r\n", 400},
        {CHUNKED "5\r\n123456\r\n", 400},
        {CHUNKED "5\r\n12345\r\nx", 400},
        {CHUNKED "10000000000000000\r\n12345\r\n", 413},
        {CHUNKED "29\r\n" FORWARD "\r\n0\r\nno colon\r\n\r\n", 400},
        {CHUNKED "29\r\n" FORWARD "\r\n0\r\nX: 1\r\nno colon\r\n\r\n", 400},
        /* a body that is thrown away anyway */
        {"POST /nowhere HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nfive\r\n", 400},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) is_a_problem(cases[i].text, cases[i].status);
}

/* More than its memory for a connection takes, all of it or records of what is in it. */
static void heads_beyond_the_library(void **state) {
    (void)state;
    static const char get_healthz[] = "GET /healthz HTTP/1.1\r\n" HOST;
    is_a_problem(repeated("GET /", "a", 1 << 17, ""), 431);
    is_a_problem(repeated(get_healthz, "a", 1 << 17, ""), 431);
    is_a_problem(repeated(CHUNKED "5;", "a", 1 << 17, ""), 400);
    is_a_problem(repeated(CHUNKED "0\r\n", "a:\r\n", 1 << 15, ""), 431);
    is_a_problem(repeated(CHUNKED "0\r\nX: ", "a", 1 << 17, ""), 431);
    /* but --max-head alone bounds what is whole */
    const char *cookies = repeated("GET /healthz HTTP/1.1\r\n" HOST CLOSE "Cookie: ", "a;", 8000, "\r\n\r\n");
    has_status(200, say(cookies), cookies);
    const char *headers = repeated("GET /healthz HTTP/1.1\r\n" HOST CLOSE, "a:\r\n", 4000, "\r\n");
    has_status(200, say(headers), headers);
}

/* At once: a head that hangs is answered by 408, when its time is up. */
static void many_parameters(void **state) {
    (void)state;
    is_a_problem(repeated("GET /healthz?", "&", 2500, " HTTP/1.1\r\n" HOST "\r\n"), 431);
    is_a_problem(repeated("GET /healthz?", "a=%20&", 2500, " HTTP/1.1\r\n" HOST "\r\n"), 431);
    is_a_problem(repeated("GET /healthz?", "&", 16000, " HTTP/1.1\r\n" HOST "\r\n"), 431);
    const char *few = repeated("GET /healthz?", "&", 900, " HTTP/1.1\r\n" HOST CLOSE "\r\n");
    has_status(200, say(few), few);
}

/* --- targets ----------------------------------------------------------------------------------------- */

static void forms_of_a_target(void **state) {
    (void)state;
    static const struct {
        const char *line, *host;
        int status;
    } cases[] = {
        {"GET /healthz", "localhost", 200},
        {"OPTIONS *", "localhost", 204},
        {"OPTIONS *", "evil.example", 403},
        {"OPTIONS http://localhost", "localhost", 204},
        {"OPTIONS http://localhost:80", "localhost", 204},
        {"OPTIONS *?", "localhost", 400},
        {"OPTIONS **", "localhost", 400},
        {"GET *", "localhost", 400},
        {"GET http://localhost/healthz", "localhost", 200},
        {"GET HTTP://127.0.0.1:80/healthz?x", "localhost", 200},
        {"GET http://localhost/models?dtype=F32", "localhost", 422},
        /* the target's host holds, and Host does not (RFC 9112, section 3.2.2) */
        {"GET http://localhost/healthz", "evil.example", 200},
        {"GET http://evil.example/healthz", "localhost", 403},
        {"GET http://localhost@evil.example/healthz", "localhost", 403},
        {"GET http://evil.example@localhost/healthz", "localhost", 403},
        {"GET http:///healthz", "localhost", 400},
        {"GET http://", "localhost", 400},
        {"GET http://:80/healthz", "localhost", 403},
        /* no path is "/", of which nothing is known */
        {"GET http://localhost", "localhost", 404},
        {"GET http://localhost:80", "localhost", 404},
        {"GET http://localhost?x=/healthz", "localhost", 404},
        {"GET http://localhost#/healthz", "localhost", 400},
        /* a connection without TLS is none that https is spoken on */
        {"GET https://localhost/healthz", "localhost", 400},
        {"GET localhost:80", "localhost", 400},
        {"CONNECT localhost:80", "localhost", 400},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        snprintf(text, sizeof text, "%s HTTP/1.1\r\nHost: %s\r\n" CLOSE "\r\n", cases[i].line, cases[i].host);
        const char *answer = say(text);
        has_status(cases[i].status, answer, text);
        if (cases[i].status == 204) {
            assert_non_null(strstr(answer, "\r\nAllow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"));
            assert_null(strcasestr(answer, "\r\nContent-Length:"));
        }
    }
}

/* A slash that is escaped belongs to a name, and parts none. */
static void escaped_slashes(void **state) {
    (void)state;
    ask(200, "POST", "/backward",
        "{'model': 'm', 'inputs': {'x': [[1, 2]]}, 'targets': {'y': [[1]]}, 'accumulate': true}");
    static const char *const paths[] = {"/models/m%2Fgradients", "/models/m%2fgradients",
                                        "/models%2Fm/gradients", "%2Fmodels/m/gradients",
                                        "/models/m%252Fgradients"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        char text[256];
        snprintf(text, sizeof text, "DELETE %s HTTP/1.1\r\n" HOST CLOSE "\r\n", paths[i]);
        has_status(paths[i][0] == '/' ? 404 : 400, say(text), text);
    }
    ask(200, "GET", "/models/m/gradients", NULL); /* which is 409 once it is empty */
    ask(200, "GET", "/models/%6d/gradients", NULL);
    ask(200, "DELETE", "/models/m/gradients", NULL);
    ask(409, "GET", "/models/m/gradients", NULL);
}

/* --- answers ----------------------------------------------------------------------------------------- */

/* A length would be that of the answer 200, which nobody has made. The connection goes on. */
static void not_modified_has_no_length(void **state) {
    (void)state;
    static const char *const methods[] = {"GET", "HEAD"};
    for (size_t i = 0; i < 2; i++) {
        char text[512];
        snprintf(text, sizeof text,
                 "%s /models/m/parameters HTTP/1.1\r\n" HOST "If-None-Match: *\r\n\r\n"
                 "GET /nowhere HTTP/1.1\r\n" HOST CLOSE "\r\n",
                 methods[i]);
        const char *answer = say(text);
        has_status(304, answer, text);
        char *head = service_keep(strndup(answer, (size_t)(strstr(answer, "\r\n\r\n") + 4 - answer)));
        assert_null(strcasestr(head, "Content-Length"));
        assert_null(strcasestr(head, "Transfer-Encoding"));
        assert_non_null(strcasestr(head, "\r\nETag: "));
        has_status(404, answer + strlen(head), text);
    }
}

/* Whatever header is read, a page may send, if it is one that pages can set at all. */
static void what_pages_may_send(void **state) {
    (void)state;
    const char *answer = say("OPTIONS /backward HTTP/1.1\r\n" HOST CLOSE "Origin: https://a.example\r\n"
                             "Access-Control-Request-Method: POST\r\n\r\n");
    assert_int_equal(raw_status(answer), 204);
    const char *allowed = strstr(answer, "\r\nAccess-Control-Allow-Headers: ");
    assert_non_null(allowed);
    char *line = service_keep(strndup(allowed + 2, strcspn(allowed + 2, "\r")));
    static const char *const names[] = {"Accept",        "Authorization", "Content-Type", "Idempotency-Key",
                                        "If-None-Match", "If-Match",      "traceparent"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strstr(line, names[i])) fail_msg("%s is not in %s", names[i], line);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        service_test(lists_in_several_lines),     service_test(single_headers_twice),
        service_test(blanks_behind_values),       service_test(errors_of_the_library),
        service_test(heads_beyond_the_library),   service_test(many_parameters),
        service_test(forms_of_a_target),          service_test(escaped_slashes),
        service_test(not_modified_has_no_length), service_test(what_pages_may_send),
    };
    return cmocka_run_group_tests(tests, setup, service_teardown);
}
