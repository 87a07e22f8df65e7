/* routes.c - the table of routes, out of routes.def. */
#include "../request/request.h"

const struct api_route api_routes[API_ROUTES] = {
#define API_ROUTE(method, path, handler, body, effect, scope, recorded, cost, query, requires, members,      \
                  summary)                                                                                   \
    {method,                                                                                                 \
     path,                                                                                                   \
     handler,                                                                                                \
     body,                                                                                                   \
     effect,                                                                                                 \
     API_SCOPE_##scope,                                                                                      \
     API_RECORD_##recorded,                                                                                  \
     API_COST_##cost,                                                                                        \
     ROUTE_OF_##handler,                                                                                     \
     query,                                                                                                  \
     requires,                                                                                               \
     members,                                                                                                \
     summary},
#include "../request/routes.def"
#undef API_ROUTE
};
