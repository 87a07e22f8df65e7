/* listen.h - the socket that gradd listens on, and the thread that accepts from it. */
#ifndef SRV_LISTEN_H
#define SRV_LISTEN_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "../../api/api.h"

struct srv_listener;

/* Binds "HOST:PORT", "[HOST]:PORT" or "unix:PATH", and listens. Without `may_be_public`, addresses beyond loopback are
 * refused. A Unix socket's file has `mode` before anybody can connect; a left-over one, on which nobody listens, is
 * replaced. NN_E_VALUE: the address is malformed. NN_E_FORBIDDEN: it is beyond loopback. NN_E_BUSY: the system refuses
 * it. */
struct srv_listener *srv_listener_new(const char *address, bool may_be_public, mode_t mode,
                                      struct nn_error *err);
/* Stops listening, and removes a Unix socket's file if it is the one that was made. */
void srv_listener_free(struct srv_listener *listener);

/* "http://127.0.0.1:8080", with the port that was bound, or "unix:PATH". */
const char *srv_listener_url(const struct srv_listener *listener);

/* Called on the listener's thread with every connection; `fd` is the callee's. */
typedef void srv_accept_fn(void *self, int fd, const struct sockaddr *address, socklen_t length);
/* Starts accepting. While `connections` are open, or only a few descriptors are left for files, further connections
 * wait in the system's queue. To be called when all lasting descriptors are open. NN_E_INTERNAL. */
int srv_listener_start(struct srv_listener *listener, int connections, srv_accept_fn *accepted, void *self,
                       struct nn_error *err);
/* To be called when the serving of a connection begins, and when it ends. From any thread. */
void srv_listener_opened(struct srv_listener *listener);
void srv_listener_closed(struct srv_listener *listener);
/* Stops accepting: peers are refused from now on. May be called twice. */
void srv_listener_stop(struct srv_listener *listener);

#endif
