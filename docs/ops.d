docs/ops: docs/ops.c docs/../api/api.h docs/../api/../core/nn.h \
 docs/../api/../core/errors.def
docs/../api/api.h:
docs/../api/../core/nn.h:
docs/../api/../core/errors.def:
