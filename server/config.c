/* config.c - see config.h. All that is known of a setting stands in its row of config.def. */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum kind { COUNT, BYTES, SECONDS, WORK, MODE, CHOICE, TEXT, SECRET };

#define SRV_AUTO (-1)

/* per compute thread, which does some 1e11 operations a second: a minute */
#define AUTO_WORK INT64_C(6000000000000)

struct row {
    const char *name;
    enum kind kind;
    const char *by_default;
    int64_t least, most;
    const char *unit, *text;
    size_t offset;
};

static const struct row rows[] = {
#define SRV_SETTING(name, kind, by_default, least, most, unit, text)                                         \
    {#name, kind, by_default, least, most, unit, text, offsetof(struct srv_settings, name)},
#include "config.def"
#undef SRV_SETTING
};
enum { ROWS = sizeof rows / sizeof rows[0] };

/* The sources of a setting, in rising precedence. */
enum source { BY_DEFAULT, BY_FILE, BY_ENVIRONMENT, BY_FLAG };

struct loading {
    struct srv_settings *settings;
    enum source source[ROWS];
    struct nn_error *err;
};

static char **text_of(struct srv_settings *settings, const struct row *row) {
    return (char **)(void *)((char *)settings + row->offset);
}

static int64_t *number_of(struct srv_settings *settings, const struct row *row) {
    return (int64_t *)(void *)((char *)settings + row->offset);
}

static bool is_text(const struct row *row) { return row->kind == TEXT || row->kind == SECRET; }

static bool is_auto(const struct row *row, const char *text) {
    return row->by_default && strcmp(row->by_default, "auto") == 0 && strcmp(text, "auto") == 0;
}

/* --- one value ---------------------------------------------------------------------------------- */

/* Parses a whole number with a suffix out of `suffixes`, whose values are in `units`. */
static bool parse_number(const char *text, const char *suffixes, const int64_t *units, int64_t *value) {
    if (!isdigit((unsigned char)text[0])) return false;
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno) number = LLONG_MAX;
    int64_t unit = 1;
    if (*end) {
        const char *suffix = strchr(suffixes, toupper((unsigned char)*end));
        if (!suffix || end[1]) return false;
        unit = units[suffix - suffixes];
    }
    if (__builtin_mul_overflow((int64_t)number, unit, value)) *value = INT64_MAX;
    return true;
}

/* Parses decimals with a power of ten. */
static bool parse_work(const char *text, int64_t *value) {
    char *end;
    if (!isdigit((unsigned char)text[0]) || text[strspn(text, "0123456789.e+")]) return false;
    double number = strtod(text, &end);
    *value = number < 9e18 ? (int64_t)number : INT64_MAX;
    return !*end;
}

static int set_number(struct loading *load, const struct row *row, const char *text, const char *where,
                      int64_t *value) {
    static const struct {
        const char *suffixes;
        int64_t units[4];
        const char *wanted;
    } forms[] = {
        [COUNT] = {"", {0}, "a whole number"},
        [BYTES] = {"KMGT",
                   {INT64_C(1) << 10, INT64_C(1) << 20, INT64_C(1) << 30, INT64_C(1) << 40},
                   "a whole number of bytes, with K, M, G or T behind it"},
        [SECONDS] = {"SMH", {1, 60, 3600}, "a whole number of seconds, or with m or h behind it"},
        [WORK] = {"", {0}, "a number of operations, such as 2e12"},
    };
    if (is_auto(row, text)) {
        *value = SRV_AUTO;
        return NN_OK;
    }
    if (row->kind == WORK ? !parse_work(text, value)
                          : !parse_number(text, forms[row->kind].suffixes, forms[row->kind].units, value))
        return nn_fail_member(load->err, NN_E_VALUE, row->name, "%s: \"%s\" is not %s", where, text,
                              forms[row->kind].wanted);
    if (*value < row->least || *value > row->most)
        return nn_fail_member(load->err, NN_E_VALUE, row->name, "%s: %s is out of range: %lld to %lld", where,
                              text, (long long)row->least, (long long)row->most);
    return NN_OK;
}

static int set_mode(struct loading *load, const struct row *row, const char *text, const char *where,
                    int64_t *value) {
    size_t digits = strspn(text, "01234567");
    if (digits == 0 || digits > 4 || text[digits] || (*value = strtol(text, NULL, 8)) > row->most)
        return nn_fail_member(load->err, NN_E_VALUE, row->name,
                              "%s: \"%s\" is not the mode of a file in octal digits, such as 660", where,
                              text);
    return NN_OK;
}

static int set_choice(struct loading *load, const struct row *row, const char *text, const char *where,
                      int64_t *value) {
    size_t length = strlen(text);
    int64_t index = 0;
    for (const char *word = row->unit; word; index++) {
        const char *end = strchrnul(word, '|');
        if (length == (size_t)(end - word) && memcmp(word, text, length) == 0) {
            *value = index;
            return NN_OK;
        }
        word = *end ? end + 1 : NULL;
    }
    return nn_fail_member(load->err, NN_E_VALUE, row->name, "%s: \"%s\" is not one of %s", where, text,
                          row->unit);
}

static int set_text(struct loading *load, const struct row *row, const char *text, const char *where,
                    char **value) {
    if (!*text) return nn_fail_member(load->err, NN_E_VALUE, row->name, "%s: the value is empty", where);
    char *copy = strdup(text);
    if (!copy) return nn_fail(load->err, NN_E_NOMEM, "no memory for the settings");
    free(*value);
    *value = copy;
    return NN_OK;
}

/* Checks the value in any case. Keeps it unless a source of higher precedence has set one. */
static int set(struct loading *load, const struct row *row, enum source source, const char *text,
               const char *where) {
    struct srv_settings unused = {0};
    bool keep = source >= load->source[row - rows];
    struct srv_settings *into = keep ? load->settings : &unused;
    int code;
    if (is_text(row))
        code = set_text(load, row, text, where, text_of(into, row));
    else if (row->kind == CHOICE)
        code = set_choice(load, row, text, where, number_of(into, row));
    else if (row->kind == MODE)
        code = set_mode(load, row, text, where, number_of(into, row));
    else
        code = set_number(load, row, text, where, number_of(into, row));
    if (keep) load->source[row - rows] = source;
    srv_settings_fini(&unused);
    return code;
}

/* The row of this name, which is written with '-' in place of '_'. */
static const struct row *find(const char *name, size_t length) {
    for (const struct row *row = rows; row < rows + ROWS; row++) {
        size_t i = 0;
        while (i < length && row->name[i] && name[i] == (row->name[i] == '_' ? '-' : row->name[i])) i++;
        if (i == length && !row->name[i]) return row;
    }
    return NULL;
}

/* --- the sources -------------------------------------------------------------------------------- */

static int load_defaults(struct loading *load) {
    int code = NN_OK;
    for (const struct row *row = rows; row < rows + ROWS && !code; row++)
        if (row->by_default) code = set(load, row, BY_DEFAULT, row->by_default, "config.def");
    return code;
}

static int load_flags(struct loading *load, int argc, char *const *argv, enum srv_wish *wish) {
    int code = NN_OK;
    for (int i = 1; i < argc && argv[i] && !code; i++) {
        const char *flag = argv[i];
        if (strcmp(flag, "--help") == 0 || strcmp(flag, "-h") == 0) *wish = SRV_HELP;
        if (strcmp(flag, "--version") == 0) *wish = SRV_VERSION;
        if (*wish != SRV_RUN) return NN_OK;

        const char *name = flag + 2, *end = strchrnul(flag, '=');
        char where[64];
        snprintf(where, sizeof where, "%.*s", (int)(end - flag), flag);
        const struct row *row = strncmp(flag, "--", 2) == 0 ? find(name, (size_t)(end - name)) : NULL;
        if (!row)
            return nn_fail(load->err, NN_E_UNKNOWN_MEMBER, "%s: there is no such flag; see --help", where);
        if (row->kind == SECRET)
            return nn_fail_member(load->err, NN_E_VALUE, row->name,
                                  "%s: everyone on this machine can read the flags of a program; use "
                                  "GRADD_TOKEN, --token-file or --secret-file",
                                  where);
        const char *value = *end ? end + 1 : ++i < argc ? argv[i] : NULL;
        if (!value)
            return nn_fail_member(load->err, NN_E_VALUE, row->name, "%s: %s is missing", where, row->unit);
        code = set(load, row, BY_FLAG, value, where);
    }
    return code;
}

/* An unknown variable may be another program's: it gives a warning, and is not refused. */
static int load_environment(struct loading *load, char *const *environment) {
    int code = NN_OK;
    for (; *environment && !code; environment++) {
        static const char prefix[] = "GRADD_";
        const char *variable = *environment, *end = strchr(variable, '=');
        if (!end || strncmp(variable, prefix, sizeof prefix - 1) != 0) continue;
        char name[64] = "", where[64];
        snprintf(where, sizeof where, "%.*s", (int)(end - variable), variable);
        for (size_t i = 0; where[i + sizeof prefix - 1]; i++) {
            char c = where[i + sizeof prefix - 1];
            name[i] = c == '_' ? '-' : (char)tolower((unsigned char)c);
        }
        const struct row *row = find(name, strlen(name));
        if (row)
            code = set(load, row, BY_ENVIRONMENT, end + 1, where);
        else
            fprintf(stderr, "gradd: %s has no effect: there is no such setting; see --help\n", where);
    }
    return code;
}

static char *trimmed(char *text) {
    while (isspace((unsigned char)*text)) text++;
    size_t length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1])) text[--length] = 0;
    return text;
}

/* Splits a line into the setting's name and its value. NULL: the line is empty. */
static char *cut_line(char *line, char **value) {
    char *comment = line;
    while (*comment && !(*comment == '#' && (comment == line || isspace((unsigned char)comment[-1]))))
        comment++;
    *comment = 0;
    char *name = trimmed(line), *equals = strchr(name, '=');
    if (equals) *equals = 0;
    *value = equals ? trimmed(equals + 1) : NULL;
    name = trimmed(name);
    return *name || equals ? name : NULL;
}

static int load_line(struct loading *load, char *line, const char *where, bool *ended) {
    char *value, *name = cut_line(line, &value);
    if (!name) return NN_OK;
    if (*ended) return nn_fail(load->err, NN_E_VALUE, "%s: a setting stands behind the line `end`", where);
    *ended = !value && strcmp(name, "end") == 0;
    if (*ended) return NN_OK;
    if (!value)
        return nn_fail(load->err, NN_E_VALUE, "%s: a line is `name = value`, and the last one `end`", where);
    const struct row *row = find(name, strlen(name));
    if (!row) return nn_fail(load->err, NN_E_UNKNOWN_MEMBER, "%s: there is no setting \"%s\"", where, name);
    if (row->kind == SECRET || strcmp(row->name, "config") == 0)
        return nn_fail_member(load->err, NN_E_VALUE, row->name, "%s: %s cannot be set in a file", where,
                              name);
    return set(load, row, BY_FILE, value, where);
}

static int fail_file(struct loading *load, const char *path) {
    return nn_fail(load->err, NN_E_NOT_FOUND, "%s: %s", path, strerror(errno));
}

/* A file that was cut off would have fewer settings: for one, it might not ask for a token. So its end is marked. */
static int load_file(struct loading *load, const char *path) {
    FILE *file = fopen(path, "re");
    if (!file) return fail_file(load, path);
    char *line = NULL;
    size_t size = 0;
    int code = NN_OK;
    bool ended = false;
    ssize_t length;
    for (int number = 1; !code && (length = getline(&line, &size, file)) >= 0; number++) {
        char where[PATH_MAX + 16];
        snprintf(where, sizeof where, "%s:%d", path, number);
        if (strlen(line) != (size_t)length)
            code = nn_fail(load->err, NN_E_VALUE, "%s: it is no text", where);
        else if (line[length - 1] != '\n')
            code = nn_fail(load->err, NN_E_VALUE, "%s: the line has no end: it may be cut off", where);
        else
            code = load_line(load, line, where, &ended);
    }
    if (!code && ferror(file)) code = fail_file(load, path);
    if (!code && !ended)
        code = nn_fail(load->err, NN_E_VALUE, "%s: its last line is not `end`: it may be cut off", path);
    free(line);
    fclose(file);
    return code;
}

/* --- what is left to find out ------------------------------------------------------------------- */

/* A header carries visible ASCII without spaces: no other token could ever be presented. */
static int check_token(struct loading *load) {
    const struct srv_settings *settings = load->settings;
    if (!!settings->token + !!settings->token_file + !!settings->secret_file > 1)
        return nn_fail(
            load->err, NN_E_VALUE,
            "of GRADD_TOKEN, a token file and a secret file more than one is given; which is meant?");
    for (const char *c = settings->token; c && *c; c++)
        if (*c <= ' ' || *c > '~')
            return nn_fail(load->err, NN_E_VALUE,
                           "GRADD_TOKEN: a token is made of visible ASCII characters, without spaces");
    return NN_OK;
}

static int64_t machine_threads(void) {
    cpu_set_t cores;
    return sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

/* The memory that this process may have; in a container, the container's share. */
static int64_t machine_memory(void) {
    int64_t bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
    FILE *file = fopen("/sys/fs/cgroup/memory.max", "re");
    long long limit;
    if (file) {
        char text[32] = "";
        if (fgets(text, sizeof text, file) && (limit = strtoll(text, NULL, 10)) > 0 && limit < bytes)
            bytes = limit;
        fclose(file);
    }
    return bytes;
}

int srv_settings_load(struct srv_settings *settings, int argc, char *const *argv, char *const *environment,
                      enum srv_wish *wish, struct nn_error *err) {
    struct loading load = {.settings = settings, .err = err};
    int code;
    *settings = (struct srv_settings){0};
    *wish = SRV_RUN;
    if ((code = load_defaults(&load))) return code;
    if ((code = load_flags(&load, argc, argv, wish)) || *wish != SRV_RUN) return code;
    if ((code = load_environment(&load, environment))) return code;
    if (settings->config && (code = load_file(&load, settings->config))) return code;
    if ((code = check_token(&load))) return code;
    if (settings->compute_threads == SRV_AUTO) settings->compute_threads = machine_threads();
    if (settings->memory == SRV_AUTO) settings->memory = machine_memory() / 2;
    if (settings->max_work == SRV_AUTO) settings->max_work = settings->compute_threads * AUTO_WORK;
    return NN_OK;
}

void srv_settings_fini(struct srv_settings *settings) {
    for (const struct row *row = rows; row < rows + ROWS; row++)
        if (is_text(row)) free(*text_of(settings, row));
    *settings = (struct srv_settings){0};
}

/* --- --help ------------------------------------------------------------------------------------- */

static void print_name(FILE *out, const struct row *row) {
    fputs(row->kind == SECRET ? "  GRADD_" : "  --", out);
    for (const char *c = row->name; *c; c++)
        fputc(row->kind == SECRET ? toupper((unsigned char)*c) : *c == '_' ? '-' : *c, out);
    fprintf(out, "%c%s\n      %s", row->kind == SECRET ? '=' : ' ', row->unit, row->text);
}

void srv_settings_help(FILE *out) {
    fputs(
        "gradd: a service that holds neural networks, and computes and applies their gradients over HTTP.\n\n"
        "usage: gradd [--SETTING VALUE]... | verify DIR | --help | --version\n\n"
        "gradd verify DIR looks at what --data DIR has stored, and changes nothing.\n\n"
        "Each setting is a flag (--io-threads 4), an environment variable (GRADD_IO_THREADS=4) or a line\n"
        "of the file that --config names (io-threads = 4); the first of these that speaks of it counts.\n"
        "That file ends with the line `end`, so that one which was cut off is refused.\n"
        "Bytes may be given with K, M, G or T behind the number, seconds with m or h.\n\n",
        out);
    for (const struct row *row = rows; row < rows + ROWS; row++) {
        print_name(out, row);
        if (row->kind == COUNT)
            fprintf(out, " From %lld to %lld.", (long long)row->least, (long long)row->most);
        if (row->by_default) fprintf(out, " Default: %s.", row->by_default);
        if (row->kind == SECRET) fputs(" From the environment only.", out);
        fputc('\n', out);
    }
}
