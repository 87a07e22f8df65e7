/* digits.c - learns to read handwritten digits by talking to gradd over HTTP.
 *
 *   digits [--url URL] [--token TOKEN]
 *
 * It creates a model, trains it on 1,437 images of 8x8 pixels, one POST /backward a batch, and tests it with
 * one POST /forward on 360 others. Without --url it starts a daemon of its own (GRADD, or build/gradd) and
 * stops it at the end. It ends with status 0 if at least 97% of the test images were read right. */
#include <getopt.h>
#include <time.h>

#include "client.h"

#define DATA   "examples/data/digits.safetensors"
#define DAEMON "build/gradd"

enum { SIDE = 8, PIXELS = SIDE * SIDE, CLASSES = 10, TEST = 360, BATCH = 64, EPOCHS = 30, NEEDED = 97 };
static const double first_lr = 0.01; /* falls in a line to 0 */

#define SPECIFICATION(name)                                                                                  \
    "{\"name\": \"" name "\", \"seed\": 42,\n"                                                               \
    "  \"inputs\": {\"x\": {\"shape\": [64]}},\n"                                                            \
    "  \"layers\": [{\"op\": \"linear\", \"out_features\": 128}, {\"op\": \"relu\"},\n"                      \
    "             {\"op\": \"dropout\", \"p\": 0.2},\n"                                                      \
    "             {\"op\": \"linear\", \"out_features\": 10, \"name\": \"logits\"}],\n"                      \
    "  \"loss\": {\"op\": \"cross_entropy\", \"label_smoothing\": 0.1},\n"                                   \
    "  \"optimizer\": {\"op\": \"adamw\", \"lr\": 0.01}}"

struct digits {
    size_t count, train; /* of images; those of them to learn from */
    uint8_t *pixels;     /* [count, PIXELS], 0 to 16 */
    int64_t *labels;     /* [count] */
    size_t *order;       /* of the images: the first `train` are learnt from, the rest tested */
};

/* --- the images -------------------------------------------------------------------------------------- */

static struct bytes read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die("%s: %s (the example runs in the project's own folder)", path, strerror(errno));
    struct bytes all = {NULL, 0};
    char piece[65536];
    for (size_t n; (n = fread(piece, 1, sizeof piece, file)) > 0; all.size += n) {
        all.data = realloc(all.data, all.size + n);
        if (!all.data) die("memory is out");
        memcpy(all.data + all.size, piece, n);
    }
    if (ferror(file)) die("%s: cannot be read", path);
    fclose(file);
    return all;
}

/* SplitMix64: every run shuffles alike. */
static uint64_t draw(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15U;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9U;
    z = (z ^ z >> 27) * 0x94D049BB133111EBU;
    return z ^ z >> 31;
}

static void shuffle(size_t *order, size_t n, uint64_t *state) {
    for (size_t i = n; i > 1; i--) {
        size_t k = draw(state) % i, held = order[i - 1];
        order[i - 1] = order[k];
        order[k] = held;
    }
}

static struct digits load_digits(uint64_t *state) {
    struct bytes file = read_file(DATA);
    struct tensor x = {.name = "x", .dtype = "U8", .width = PIXELS}, y = {.name = "y", .dtype = "I64"};
    struct digits digits = {.pixels = safetensors_read(file, &x), .labels = safetensors_read(file, &y)};
    free(file.data);
    if (x.rows != y.rows || x.rows <= TEST) die("%s does not hold the digits", DATA);
    digits.count = x.rows;
    digits.train = x.rows - TEST;
    digits.order = allocate(x.rows, sizeof *digits.order);
    for (size_t i = 0; i < x.rows; i++) digits.order[i] = i;
    shuffle(digits.order, digits.count, state);
    return digits;
}

static float shade(const struct digits *digits, size_t image, int pixel) {
    return (float)digits->pixels[image * PIXELS + (size_t)pixel] / 16;
}

/* --- what is asked of gradd -------------------------------------------------------------------------- */

/* A body with the n images order[from], order[from + 1], ..., and with their labels where wanted. */
static struct bytes pack_images(const struct digits *digits, size_t from, size_t n, bool labels,
                                json_t *members) {
    float *x = allocate(n * PIXELS, sizeof *x);
    int64_t *y = allocate(n, sizeof *y);
    for (size_t i = 0; i < n; i++) {
        size_t image = digits->order[from + i];
        for (int k = 0; k < PIXELS; k++) x[i * PIXELS + (size_t)k] = shade(digits, image, k);
        y[i] = digits->labels[image];
    }
    struct tensor tensors[] = {{"inputs/x", "F32", n, PIXELS, x}, {"targets/y", "I64", n, 0, y}};
    struct bytes body = safetensors_write(members, tensors, labels ? 2 : 1);
    free(x);
    free(y);
    return body;
}

static void create_model(struct client *client) {
    static char specification[] = SPECIFICATION("digits");
    struct call remove = {.method = "DELETE", .path = "/models/digits"};
    struct reply removed = client_send(client, remove); /* of an earlier run */
    if (removed.status != 404 && removed.status / 100 != 2) client_refused(remove, removed);
    free(removed.body.data);
    struct bytes body = {specification, strlen(specification)};
    struct call create = {.method = "POST", .path = "/models", .type = AS_JSON, .body = body};
    free(client_call(client, create).data);
}

/* One step on one batch: forward, backward, update. The seed makes dropout the same in every run. */
static double train_step(struct client *client, const struct digits *digits, size_t from, size_t n, double lr,
                         uint64_t seed) {
    char apply[64], number[32];
    snprintf(apply, sizeof apply, "{\"lr\": %.6f}", lr);
    snprintf(number, sizeof number, "%llu", (unsigned long long)seed);
    json_t *members = json_pack("{s:s, s:s, s:s}", "model", "digits", "apply", apply, "seed", number);
    struct bytes body = pack_images(digits, from, n, true, members);
    struct call step = {
        .method = "POST", .path = "/backward", .type = AS_SAFETENSORS, .accept = AS_JSON, .body = body};
    struct bytes answer = client_call(client, step);
    free(body.data);
    json_t *json = json_loadb(answer.data, answer.size, 0, NULL);
    json_t *loss = json_object_get(json, "loss");
    if (!json_is_number(loss)) die("an answer without a loss: %s", answer.data);
    double value = json_number_value(loss);
    json_decref(json);
    free(answer.data);
    return value;
}

/* The model's answers for the test images: the class of the largest logit. */
static int64_t *read_digits(struct client *client, const struct digits *digits) {
    struct bytes body =
        pack_images(digits, digits->train, TEST, false, json_pack("{s:s}", "model", "digits"));
    struct call forward = {.method = "POST", .path = "/forward", .type = AS_SAFETENSORS, .body = body};
    struct bytes answer = client_call(client, forward);
    struct tensor logits = {.name = "outputs/logits", .dtype = "F32", .width = CLASSES};
    float *row, *all = safetensors_read(answer, &logits);
    if (logits.rows != TEST) die("%zu answers for %d images", logits.rows, TEST);
    int64_t *read = allocate(TEST, sizeof *read);
    for (size_t i = 0; i < TEST; i++) {
        row = all + i * CLASSES;
        for (int k = 1; k < CLASSES; k++)
            if (row[k] > row[read[i]]) read[i] = k;
    }
    free(all);
    free(body.data);
    free(answer.data);
    return read;
}

/* --- training ---------------------------------------------------------------------------------------- */

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* A terminal sees a bar that grows in its place, a file a line now and then. */
static void show_progress(int epoch, double loss, double speed) {
    static const char full[] = "##############################", empty[] = "..............................";
    bool terminal = isatty(STDOUT_FILENO);
    int width = (int)sizeof full - 1, done = width * epoch / EPOCHS;
    if (!terminal && epoch % 5 != 0 && epoch != 1) return;
    printf("%sepoch %2d/%d [%.*s%.*s] loss %.4f, %6.0f images/s%s", terminal ? "\r" : "", epoch, EPOCHS, done,
           full, width - done, empty, loss, speed, terminal && epoch < EPOCHS ? "" : "\n");
    fflush(stdout);
}

static void train(struct client *client, const struct digits *digits, uint64_t *state) {
    uint64_t step = 0;
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        double begin = seconds(), sum = 0, lr = first_lr * (1 - (double)epoch / EPOCHS);
        shuffle(digits->order, digits->train, state);
        for (size_t from = 0, n; from < digits->train; from += n) {
            n = digits->train - from < BATCH ? digits->train - from : BATCH;
            sum += (double)n * train_step(client, digits, from, n, lr, step++);
        }
        double images = (double)digits->train;
        show_progress(epoch + 1, sum / images, images / (seconds() - begin));
    }
}

/* --- what is shown ----------------------------------------------------------------------------------- */

/* Three test images side by side, two characters a pixel; the last is one misread, if there is one. */
static void show_digits(const struct digits *digits, const int64_t *read) {
    static const char shades[] = " .:-=+*#%@";
    const size_t *image = digits->order + digits->train;
    size_t shown[3] = {0, 1, 2};
    for (size_t i = TEST - 1; i > 2; i--)
        if (read[i] != digits->labels[image[i]]) shown[2] = i;
    for (int row = 0; row < SIDE; row++) {
        for (int k = 0; k < 3; k++) {
            printf("%s|", k ? "   " : "");
            for (int column = 0; column < SIDE; column++) {
                float dark = shade(digits, image[shown[k]], row * SIDE + column);
                char c = shades[(int)(dark * (float)(sizeof shades - 2) + 0.5f)];
                printf("%c%c", c, c);
            }
            putchar('|');
        }
        putchar('\n');
    }
    for (int k = 0; k < 3; k++) {
        int truth = (int)digits->labels[image[shown[k]]], said = (int)read[shown[k]];
        printf("%s read %d, %s is %d", k ? "    " : "", said, said == truth ? "and" : "but", truth);
    }
    puts("\n");
}

static bool show_accuracy(const struct digits *digits, const int64_t *read) {
    int right = 0;
    for (size_t i = 0; i < TEST; i++) right += read[i] == digits->labels[digits->order[digits->train + i]];
    printf("\naccuracy: %.1f%% (%d of %d test images)\n\n", 100.0 * right / TEST, right, TEST);
    return right * 100 >= NEEDED * TEST;
}

/* All after the title is shell, and works as it stands. */
static void show_by_hand(const struct digits *digits, const char *url, bool token) {
    const char *bearer = token ? " -H \"Authorization: Bearer $GRADD_TOKEN\"" : "";
    size_t image = digits->order[digits->train];
    puts("The same by hand, in a shell, one image for all:\n");
    printf("URL=%s%s\n\n", url ? url : "http://127.0.0.1:8080",
           url ? "" : "   # where `" DAEMON "` says that it listens");
    printf("curl%s --json '%s' $URL/models\n\n", bearer, SPECIFICATION("by-hand"));
    for (int k = 0; k < PIXELS; k++)
        printf("%s%g%s", k ? k % SIDE ? ", " : ",\n    " : "X='[[", (double)shade(digits, image, k),
               k < PIXELS - 1 ? "" : "]]'\n\n");
    printf("curl%s --json '{\"model\": \"by-hand\", \"apply\": true, \"inputs\": {\"x\": '\"$X\"'},\n"
           "  \"targets\": {\"y\": [%d]}}' $URL/backward\n\n",
           bearer, (int)digits->labels[image]);
    printf("curl%s --json '{\"model\": \"by-hand\", \"inputs\": {\"x\": '\"$X\"'}}' $URL/forward\n\n",
           bearer);
    printf("curl%s -X DELETE $URL/models/by-hand\n", bearer);
}

/* --- all of it --------------------------------------------------------------------------------------- */

static const char *read_options(int argc, char **argv, struct client *client) {
    static const struct option options[] = {{"url", required_argument, NULL, 'u'},
                                            {"token", required_argument, NULL, 't'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    static const char usage[] =
        "usage: digits [--url URL] [--token TOKEN]\n"
        "Trains the model \"digits\" at URL, or at a daemon that it starts and stops;\n"
        "a model of that name is replaced. The token may be in GRADD_TOKEN instead.\n";
    const char *url = NULL;
    int c;
    client->token = getenv("GRADD_TOKEN");
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'u') url = optarg;
        if (c == 't') client->token = optarg;
        if (c != 'u' && c != 't') {
            fputs(usage, c == 'h' ? stdout : stderr);
            exit(c == 'h' ? EXIT_SUCCESS : EXIT_FAILURE);
        }
    }
    if (optind < argc) die("%s: not an option", argv[optind]);
    return url;
}

int main(int argc, char **argv) {
    struct client client = {0};
    uint64_t state = 1;
    const char *url = read_options(argc, argv, &client), *program = getenv("GRADD");
    struct digits digits = load_digits(&state);
    client_open(&client, url ? strdup(url) : daemon_start(program ? program : DAEMON));
    printf("gradd %s %s\n", url ? "is at" : "has been started at", client.url);
    printf("%zu images in random order: %zu to learn from, %d to test with\n\n", digits.count, digits.train,
           TEST);

    create_model(&client);
    train(&client, &digits, &state);
    int64_t *read = read_digits(&client, &digits);
    bool good = show_accuracy(&digits, read);
    show_digits(&digits, read);
    show_by_hand(&digits, url ? client.url : NULL, client.token != NULL);

    client_close(&client);
    if (!daemon_stop()) die("the daemon did not stop in order");
    free(read);
    free(digits.order);
    free(digits.labels);
    free(digits.pixels);
    if (!good) die("less than %d%% of the test images were read right", NEEDED);
    return EXIT_SUCCESS;
}
