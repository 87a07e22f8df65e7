/* client.c - see client.h. */
#include "client.h"

#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service.h"

struct api_client {
    char name[64];
    int in_flight; /* guarded by the registry's lock */
};

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct api_client *)a)->name, ((const struct api_client *)b)->name);
}

/* With the lock held: finds or makes the client of this address. NULL: memory is out. */
static struct api_client *find(struct api *api, const char *name) {
    struct api_client key = {0};
    snprintf(key.name, sizeof key.name, "%s", name);
    void *node = tfind(&key, &api->clients, by_name);
    if (node) return *(struct api_client **)node;
    struct api_client *client = malloc(sizeof *client);
    if (!client) return NULL;
    *client = key;
    if (tsearch(client, &api->clients, by_name)) return client;
    free(client);
    return NULL;
}

int api_client_enter(struct api_request *request, const char *name) {
    struct api *api = request->api;
    int limit = api->settings.limits.client_requests;
    pthread_mutex_lock(&api->lock);
    struct api_client *client = find(api, name);
    bool room = client && client->in_flight < limit;
    if (room) {
        client->in_flight++;
        request->client = client;
    }
    pthread_mutex_unlock(&api->lock);
    if (room) return NN_OK;
    if (!client) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
    return nn_fail(&request->err, NN_E_TOO_MANY, "a client has at most %d requests in flight", limit);
}

void api_client_leave(struct api_request *request) {
    struct api *api = request->api;
    struct api_client *client = request->client;
    if (!client) return;
    request->client = NULL;
    pthread_mutex_lock(&api->lock);
    bool last = --client->in_flight == 0;
    if (last) tdelete(client, &api->clients, by_name);
    pthread_mutex_unlock(&api->lock);
    if (last) free(client);
}
