/* listen.h - the socket that gradd listens on, and the thread that accepts from it. */
#ifndef SRV_LISTEN_H
#define SRV_LISTEN_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "../../api/api.h"

struct srv_listener;

/* Binds "HOST:PORT", "[HOST]:PORT" or "unix:PATH" and listens. Unless it `may_be_public`, an address
 * beyond loopback is refused. A Unix socket's file has that mode before anybody can connect. A Unix socket that is left over, with nobody listening, is replaced.
 * NN_E_VALUE: the address itself; NN_E_FORBIDDEN: beyond loopback; NN_E_BUSY: the system refuses it. */
struct srv_listener *srv_listener_new(const char *address, bool may_be_public, mode_t mode,
                                      struct nn_error *err);
/* Stops, and removes a Unix socket's file if it is still the one that was made. */
void srv_listener_free(struct srv_listener *listener);

/* "http://127.0.0.1:8080", with the port that was bound, or "unix:PATH". */
const char *srv_listener_url(const struct srv_listener *listener);

/* Called on the listener's thread with every connection; `fd` is the callee's. */
typedef void srv_accept_fn(void *self, int fd, const struct sockaddr *address, socklen_t length);
/* Begins to accept; while `connections` are open, more wait in the system's queue. NN_E_INTERNAL. */
int srv_listener_start(struct srv_listener *listener, int connections, srv_accept_fn *accepted, void *self,
                       struct nn_error *err);
/* To be told when an accepted connection begins to be served, and when it ends. From any thread. */
void srv_listener_opened(struct srv_listener *listener);
void srv_listener_closed(struct srv_listener *listener);
/* No more connections: peers are refused from here on. May be called twice. */
void srv_listener_stop(struct srv_listener *listener);

#endif
