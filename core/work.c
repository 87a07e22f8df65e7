/* work.c - how much arithmetic a graph takes, from what its operators say: see struct nn_work. */
#include "graph.h"

/* What a number that is drawn at the start counts as: one after the other, and a normal one takes a logarithm. */
static const double draw[] = {
    [NN_INIT_CONSTANT] = NN_WORK_NUMBER, [NN_INIT_UNIFORM] = 1500, [NN_INIT_NORMAL] = 9000};

/* A row's forward: the operator's own, and each number that it reads or writes. */
static double forward(const struct nn_node *node) {
    double numbers = (double)nn_shape_elements(&node->inferred.out);
    for (int i = 0; i < node->n_inputs; i++) numbers += (double)nn_shape_elements(&node->in[i]);
    for (int i = 1; i < node->n_values; i++)
        numbers += (double)nn_shape_elements(&node->inferred.more_out[i - 1]);
    return node->op->work(&node->inferred) + NN_WORK_NUMBER * numbers;
}

/* Beside its two passes, a loss is reduced to a number, and that one's gradient spread over it. */
static double loss(const struct nn_node *node) {
    return (1 + NN_WORK_BACKWARD) * forward(node) +
           4 * NN_WORK_NUMBER * (double)nn_shape_elements(&node->inferred.out);
}

static void add(struct nn_cost *cost, const struct nn_node *node, double work) {
    *(node->rows ? &cost->a_row : &cost->once) += work;
}

struct nn_work nn_graph_work(const struct nn_graph *graph) {
    struct nn_work work = {0};
    for (int i = graph->n_inputs; i < graph->n_nodes; i++)
        add(&work.forward, &graph->nodes[i], forward(&graph->nodes[i]));
    work.backward.a_row = NN_WORK_BACKWARD * work.forward.a_row;
    work.backward.once = NN_WORK_BACKWARD * work.forward.once;
    for (int i = 0; i < graph->n_losses; i++)
        add(&work.backward, &graph->losses[i].node, loss(&graph->losses[i].node));
    for (int i = 0; i < graph->n_params; i++)
        work.draw += draw[graph->inits[i].kind] * (double)graph->params[i].elements;
    return work;
}
