/* SPDX-License-Identifier: MIT */
/* lockkeeper graph: who waits for whom, to be drawn or to be checked. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include <lockkeeper/lockkeeper.h>

#include "client/cli/cli.h"
#include "client/cli/json.h"
#include "client/cli/listing.h"
#include "client/cli/text.h"
#include "client/cli/wait_graph.h"
#include "common/cleanup.h"

static const char help[] =
    "Usage: lockkeeper graph [options]\n"
    "\n"
    "Prints who waits for whom. Solid: for the owner of a lock, or for readers to leave it. "
    "Dashed:\n"
    "queued behind somebody. Red: a ring of sessions that wait for each other. Sessions and locks "
    "that\n"
    "you may not see have numbers for names.\n"
    "\n"
    "      --format FORMAT  dot (default), for Graphviz; mermaid; json, schema lockkeeper.graph/1\n"
    "      --json           the same as --format json\n"
    "      --socket PATH    the broker to ask; see 'lockkeeper where'\n"
    "  -h, --help           show this help\n"
    "  -V, --version        show the version\n"
    "\n"
    "Rings are refused as they close, so that one to be seen here has members that cannot be: "
    "they\n"
    "have lost their connection to the broker. End one of them.\n"
    "\n"
    "EXIT STATUS\n"
    "  0 printed; 3 printed, and there is a ring; 64 wrong usage; 66 no broker; 71 system error;\n"
    "  76 protocol\n"
    "\n"
    "EXAMPLES\n"
    "  lockkeeper graph | dot -Tsvg > waits.svg\n"
    "  lockkeeper graph --json | jq '.edges[] | select(.in_ring)'\n";

enum { OPTION_FORMAT = LKI_OPTION_OWN };

static const struct option long_options[] = {
    {"format", required_argument, NULL, OPTION_FORMAT},
    LKI_OPTIONS_READ,
    {NULL, 0, NULL, 0},
};

/* --- Labels --- */

/* "make[812]", and for whom nothing may be told "session 12". */
static void node_label(const struct lki_graph_node *node, char *out_label, size_t bytes)
{
    if (node->entry)
        snprintf(out_label, bytes, "%s[%" PRId32 "]", node->entry->command, node->entry->is.pid);
    else
        snprintf(out_label, bytes, "session %" PRIu64, node->session);
}

static void lock_label(const struct lki_listing_entry *entry, char *out_label, size_t bytes)
{
    if (*entry->name)
        snprintf(out_label, bytes, "%s", entry->label);
    else
        snprintf(out_label, bytes, "segment %" PRIu32 ", lock %" PRIu32, entry->is.segment,
                 entry->is.lock);
}

static void edge_label(const struct lki_graph_edge *edge, char *out_label, size_t bytes)
{
    lock_label(edge->entry, out_label, bytes);
    size_t used = strlen(out_label);
    snprintf(out_label + used, bytes - used, ", %s",
             edge->kind == LKI_GRAPH_DRAINS ? "drains" : lki_text_mode(edge->entry->is.mode));
}

/* --- Formats --- */

/* A string of the dot language: only quotes and backslashes mean something in it. */
static void print_dot_string(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        putchar(*text);
    }
    putchar('"');
}

static void print_dot(const struct lki_graph *graph)
{
    char label[1024];
    puts("digraph lockkeeper {\n  rankdir=LR;\n  node [shape=box];");
    for (size_t i = 0; i < graph->node_count; i++) {
        const struct lki_graph_node *node = &graph->nodes[i];
        node_label(node, label, sizeof(label));
        printf("  s%" PRIu64 " [label=", node->session);
        print_dot_string(label);
        printf("%s];\n", node->in_ring ? ", color=red" : "");
    }
    for (size_t i = 0; i < graph->edge_count; i++) {
        const struct lki_graph_edge *edge = &graph->edges[i];
        edge_label(edge, label, sizeof(label));
        printf("  s%" PRIu64 " -> s%" PRIu64 " [label=", graph->nodes[edge->from].session,
               graph->nodes[edge->to].session);
        print_dot_string(label);
        printf("%s%s];\n", edge->kind == LKI_GRAPH_QUEUED ? ", style=dashed" : "",
               edge->in_ring ? ", color=red" : "");
    }
    puts("}");
}

/* Mermaid has its own entities for what means something in it. */
static void print_mermaid_string(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (strchr("\"#<>&;`\\", *text))
            printf("#%d;", *text);
        else
            putchar(*text);
    }
    putchar('"');
}

static void print_mermaid(const struct lki_graph *graph)
{
    char label[1024];
    puts("flowchart LR");
    for (size_t i = 0; i < graph->node_count; i++) {
        node_label(&graph->nodes[i], label, sizeof(label));
        printf("  s%" PRIu64 "[", graph->nodes[i].session);
        print_mermaid_string(label);
        puts("]");
    }
    for (size_t i = 0; i < graph->edge_count; i++) {
        const struct lki_graph_edge *edge = &graph->edges[i];
        edge_label(edge, label, sizeof(label));
        printf("  s%" PRIu64 " %s|", graph->nodes[edge->from].session,
               edge->kind == LKI_GRAPH_QUEUED ? "-.->" : "-->");
        print_mermaid_string(label);
        printf("| s%" PRIu64 "\n", graph->nodes[edge->to].session);
    }
    for (size_t i = 0; i < graph->edge_count; i++)
        if (graph->edges[i].in_ring)
            printf("  linkStyle %zu stroke:red\n", i);
}

static json_t *node_object(const struct lki_graph_node *node)
{
    const struct lki_listing_entry *entry = node->entry;
    if (!entry)
        return json_pack("{s:o, s:n, s:n, s:n, s:n, s:b}", "session",
                         lki_json_number(node->session), "pid", "uid", "user", "command", "in_ring",
                         node->in_ring);
    return json_pack("{s:o, s:i, s:I, s:s, s:s, s:b}", "session", lki_json_number(node->session),
                     "pid", (int)entry->is.pid, "uid", (json_int_t)entry->is.uid, "user",
                     lki_text_user(entry->is.uid).text, "command", entry->command, "in_ring",
                     node->in_ring);
}

static json_t *edge_object(const struct lki_graph *graph, const struct lki_graph_edge *edge)
{
    static const char *const kinds[] = {
        [LKI_GRAPH_WAITS] = "waits", [LKI_GRAPH_DRAINS] = "drains", [LKI_GRAPH_QUEUED] = "queued"};
    const struct lki_listing_entry *entry = edge->entry;
    bool known = *entry->name != '\0';
    return json_pack("{s:o, s:o, s:s, s:s?, s:s?, s:I, s:s, s:o, s:b}", "from",
                     lki_json_number(graph->nodes[edge->from].session), "to",
                     lki_json_number(graph->nodes[edge->to].session), "kind", kinds[edge->kind],
                     "name", known ? entry->label : NULL, "segment", known ? entry->name : NULL,
                     "lock", (json_int_t)entry->is.lock, "mode", lki_text_mode(entry->is.mode),
                     "waiting_ns", lki_json_known(entry->is.since_ns), "in_ring", edge->in_ring);
}

static json_t *document(const struct lki_graph *graph)
{
    json_t *nodes = json_array(), *edges = json_array();
    for (size_t i = 0; i < graph->node_count; i++)
        json_array_append_new(nodes, node_object(&graph->nodes[i]));
    for (size_t i = 0; i < graph->edge_count; i++)
        json_array_append_new(edges, edge_object(graph, &graph->edges[i]));
    return json_pack("{s:s, s:b, s:o, s:o}", "schema", "lockkeeper.graph/1", "ring",
                     graph->has_ring, "sessions", nodes, "edges", edges);
}

/* --- The command --- */

struct readings {
    struct lki_listing listing[2];
    struct lki_graph graph[2];
};

static void readings_deinit(struct readings *readings)
{
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(readings->graph); i++) {
        lki_graph_deinit(&readings->graph[i]);
        lki_listing_deinit(&readings->listing[i]);
    }
}

/* A ring has to be there twice: the pages of a listing are of different times. */
static int read_graph(struct lk_session *session, struct readings *readings,
                      const struct lki_graph **out_graph)
{
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(readings->graph); i++) {
        int r = lki_listing_read(session, LKI_LIST_GRAPH, NULL, &readings->listing[i]);
        if (r == 0)
            r = lki_graph_build(&readings->listing[i], i > 0 ? &readings->graph[i - 1] : NULL,
                                &readings->graph[i]);
        if (r < 0)
            return r;
        *out_graph = &readings->graph[i];
        if (!readings->graph[i].has_ring)
            break;
    }
    return 0;
}

int lki_cli_graph(struct lki_cli *cli, int argc, char **argv)
{
    const char *format = "dot";
    int option;
    while ((option = getopt_long(argc, argv, "qhV", long_options, NULL)) != -1) {
        if (option == OPTION_FORMAT) {
            format = optarg;
            continue;
        }
        int code = lki_cli_common_option(cli, option, help);
        if (code >= 0)
            return code;
    }
    if (argc > optind)
        return lki_cli_usage(cli, "too many arguments");
    if (strcmp(format, "dot") != 0 && strcmp(format, "mermaid") != 0 && strcmp(format, "json") != 0)
        return lki_cli_usage(cli, "--format is dot, mermaid or json, not '%s'", format);

    LKI_CLEANUP(lki_cli_close_session) struct lk_session *session = NULL;
    int code = lki_cli_open(cli, false, &session);
    if (code > 0)
        return code;
    LKI_CLEANUP(readings_deinit) struct readings readings = {0};
    const struct lki_graph *graph = NULL;
    int r = read_graph(session, &readings, &graph);
    if (r < 0)
        return lki_cli_refusal(r);
    int done = graph->has_ring ? LKI_EXIT_RING : LKI_EXIT_OK;
    if (cli->json || strcmp(format, "json") == 0) {
        code = lki_cli_print_json(document(graph));
        return code == LKI_EXIT_OK ? done : code;
    }
    if (strcmp(format, "dot") == 0)
        print_dot(graph);
    else
        print_mermaid(graph);
    return lki_cli_finish(done);
}
